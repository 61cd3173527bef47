#include "repetition.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "laws.hpp"

namespace varscale::analysis {
namespace {

constexpr double kWindow = 0.05;  // of all steps, before an evaluation
constexpr int kFewestSteps = 5;

struct Mean {
  double value = 0, error = 0;
};

std::optional<Mean> training_loss(const Run& run, int64_t until, double window) {
  double sum = 0, squares = 0;
  int count = 0;
  for (const records::StepRow& row : run.tables.steps) {
    if (row.step > until || static_cast<double>(row.step) <= static_cast<double>(until) - window) continue;
    sum += row.loss_mean, squares += row.loss_mean * row.loss_mean, ++count;
  }
  if (count < kFewestSteps) return std::nullopt;
  const double mean = sum / count, variance = std::max(0.0, squares / count - mean * mean) / (count - 1);
  return Mean{mean, std::sqrt(variance)};
}

}  // namespace

std::optional<LossGap> loss_gap(const Run& run) {
  const std::vector<records::EvalRow>& rows = run.tables.eval;
  if (rows.empty()) return std::nullopt;
  const auto last = static_cast<double>(rows.back().step);
  const records::EvalRow *half = nullptr, *end = nullptr;
  const auto off = [&](const records::EvalRow& row) { return std::abs(static_cast<double>(row.step) - 0.5 * last); };
  for (const records::EvalRow& row : rows)
    if (half == nullptr || off(row) < off(*half)) half = &row;
  if (off(*half) > 0.2 * last) return std::nullopt;
  for (const records::EvalRow& row : rows)
    if (row.whole_set == half->whole_set && static_cast<double>(row.step) >= 0.85 * last) end = &row;
  if (end == nullptr) return std::nullopt;
  const auto at_half = training_loss(run, half->step, kWindow * last), at_end = training_loss(run, end->step, kWindow * last);
  if (!at_half || !at_end) return std::nullopt;
  return LossGap{half->loss_mean - at_half->value, end->loss_mean - at_end->value, std::hypot(at_half->error, at_end->error)};
}

std::vector<std::string> repetition_notes(std::span<const Run* const> runs) {
  std::string list;
  double most = 0, passes = 0;
  for (const Run* run : runs) {
    if (run->passes <= 1) continue;
    const std::optional<LossGap> gap = loss_gap(*run);
    if (!gap || !gap->grows()) continue;
    list += (list.empty() ? "" : ", ") + run->id;
    most = std::max(most, gap->growth());
    passes = std::max(passes, run->passes);
  }
  if (list.empty()) return {};
  return {fmt::format("Validation loss draws away from training loss over the second half of {} (by up to {} nats, at {} passes over the "
                      "data): they learn repeated data by heart, and the law holds that beside size.",
                      list, digits(most, 2), digits(passes, 2))};
}

}  // namespace varscale::analysis
