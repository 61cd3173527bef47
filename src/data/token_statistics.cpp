#include "data/token_statistics.hpp"

#include <cmath>

namespace varscale::data {
namespace {

using Counts = std::vector<double>;  // [V]

double total(const Counts& counts) {
  double sum = 0;
  for (double c : counts) sum += c;
  return sum;
}

int64_t used(const Counts& counts) {
  int64_t codes = 0;
  for (double c : counts) codes += c > 0;
  return codes;
}

double entropy(const Counts& counts) {
  const double n = total(counts);
  double sum = 0;
  for (double c : counts) {
    if (c > 0) sum -= c / n * std::log(c / n);
  }
  return sum;
}

// Frequencies after half a count for each code.
Counts smoothed(const Counts& counts) {
  const double n = total(counts) + 0.5 * static_cast<double>(counts.size());
  Counts frequencies(counts.size());
  for (size_t v = 0; v < counts.size(); ++v) frequencies[v] = (counts[v] + 0.5) / n;
  return frequencies;
}

// sum_v counts[v] * -log q[v]: nats of all these tokens together.
double cost(const Counts& counts, const Counts& q) {
  double sum = 0;
  for (size_t v = 0; v < counts.size(); ++v) {
    if (counts[v] > 0) sum -= counts[v] * std::log(q[v]);
  }
  return sum;
}

struct Tables {
  std::vector<Counts> scale, label;  // [S][V], [classes][V]
  Counts all;
};

Tables count(const records::TokenFile& file, int64_t first_row, int64_t end_row) {
  const records::TokenFileInfo& info = file.info();
  const Counts none(info.vocabulary, 0.0);
  Tables tables{std::vector<Counts>(info.scales.size(), none),
                std::vector<Counts>(info.classes, none), none};
  for (int64_t row = first_row; row < end_row; ++row) {
    const uint16_t* token = file.row(row);
    Counts& of_label = tables.label.at(file.label(row));
    for (size_t k = 0; k < info.scales.size(); ++k) {
      for (int64_t i = 0; i < info.scales[k] * info.scales[k]; ++i, ++token) {
        tables.scale[k].at(*token) += 1;
        of_label[*token] += 1;
      }
    }
  }
  for (const Counts& counts : tables.scale) {
    for (size_t v = 0; v < counts.size(); ++v) tables.all[v] += counts[v];
  }
  return tables;
}

}  // namespace

TokenStatistics token_statistics(const records::TokenFile& file) {
  const records::TokenFileInfo& info = file.info();
  const int64_t train_rows = info.train_images * info.crops;
  const Tables train = count(file, 0, train_rows);
  const Tables validation = count(file, train_rows, info.rows());
  const double tokens = total(validation.all);

  TokenStatistics result;
  result.codes_used = used(train.all);
  result.entropy = entropy(train.all);
  const Counts everywhere = smoothed(train.all);
  result.unigram = cost(validation.all, everywhere) / tokens;
  for (size_t k = 0; k < info.scales.size(); ++k) {
    const double nats = cost(validation.scale[k], smoothed(train.scale[k]));
    result.scale_unigram += nats / tokens;
    result.scales.push_back({info.scales[k], used(train.scale[k]), entropy(train.scale[k]),
                             nats / total(validation.scale[k])});
  }
  const double prior = 0.5 * static_cast<double>(info.vocabulary);
  for (int64_t label = 0; label < info.classes; ++label) {
    const double n = total(train.label[label]) + prior;
    Counts q(everywhere);
    for (size_t v = 0; v < q.size(); ++v) q[v] = (train.label[label][v] + prior * q[v]) / n;
    result.class_unigram += cost(validation.label[label], q) / tokens;
  }
  return result;
}

}  // namespace varscale::data
