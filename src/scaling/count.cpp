#include "scaling/count.hpp"

#include <fmt/format.h>

#include "base/error.hpp"

namespace varscale::scaling {

ParameterCount count_parameters(const VarShape& shape) {
  shape.check();
  const int64_t w = shape.width, d = shape.depth, hidden = shape.hidden();
  const ScaleList& scales = shape.tokens.scales;
  ParameterCount count;
  count.class_embedding = (shape.classes + 1) * w;
  count.positions = (scales.tokens_at(0) + scales.tokens() + scales.count()) * w;
  count.word_embedding = (shape.tokens.code_width + 1) * w;

  const int64_t qkv = 3 * w * w + 2 * w;  // no key bias
  const int64_t projection = w * w + w;
  count.attention = d * (qkv + projection + (shape.attn_l2_norm ? shape.heads : 0));
  count.feed_forward = d * (2 * w * hidden + hidden + w);
  const int64_t modulation = 6 * w * w + 6 * w;
  count.adaln = shape.shared_adaln ? modulation + d * 6 * w : d * modulation;

  count.head_adaln = 2 * w * w + 2 * w;
  count.head = (w + 1) * shape.tokens.vocabulary;
  count.paper_rule = (shape.shared_adaln ? 12 : 18) * d * w * w;
  return count;
}

std::vector<std::pair<std::string, int64_t>> ParameterCount::by_rule() const {
  return {{"n_total", total()},
          {"n_non_embedding", non_embedding()},
          {"n_blocks", blocks()},
          {"n_blocks_no_adaln", blocks_no_adaln()},
          {"n_paper_rule", paper_rule}};
}

int64_t ParameterCount::by_rule(std::string_view rule) const {
  std::string known;
  for (const auto& [name, value] : by_rule()) {
    if (name == rule) return value;
    known += (known.empty() ? "" : ", ") + name;
  }
  throw base::UserError("parameter rule '{}' is not known; expected one of {}", rule, known);
}

int64_t attention_pairs(const ScaleList& scales) {
  int64_t pairs = 0;
  for (int64_t k = 0; k < scales.count(); ++k) pairs += scales.tokens_at(k) * scales.end(k);
  return pairs;
}

ForwardFlops count_forward(const VarShape& shape) {
  shape.check();
  // In doubles: products of these reach past int64 for shapes that are merely large.
  const auto w = static_cast<double>(shape.width), d = static_cast<double>(shape.depth);
  const auto hidden = static_cast<double>(shape.hidden());
  const ScaleList& scales = shape.tokens.scales;
  ForwardFlops flops;
  for (int64_t k = 0; k < scales.count(); ++k) {
    const auto tokens = static_cast<double>(scales.tokens_at(k));
    const auto keys = static_cast<double>(scales.end(k));
    ScaleFlops scale;
    if (k > 0) scale.word_embedding = 2 * tokens * static_cast<double>(shape.tokens.code_width) * w;
    scale.linear = 2 * tokens * d * (4 * w * w + 2 * w * hidden);
    scale.attention = 2 * 2 * tokens * keys * w * d;
    scale.head = 2 * tokens * w * static_cast<double>(shape.tokens.vocabulary);
    flops.scales.push_back(scale);
  }
  flops.adaln = 2 * 6 * w * w * (shape.shared_adaln ? 1 : d) + 2 * 2 * w * w;
  return flops;
}

double ForwardFlops::total() const {
  double sum = adaln;
  for (const ScaleFlops& scale : scales) sum += scale.total();
  return sum;
}

double ForwardFlops::attention() const {
  double sum = 0;
  for (const ScaleFlops& scale : scales) sum += scale.attention;
  return sum;
}

double training_flops(const VarShape& shape, double images) {
  return 3 * count_forward(shape).total() * images;
}

double six_nd(double parameters, double tokens) { return 6 * parameters * tokens; }

}  // namespace varscale::scaling
