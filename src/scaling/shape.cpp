#include "scaling/shape.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "base/error.hpp"

namespace varscale::scaling {

using base::UserError;

ScaleList::ScaleList(std::vector<int64_t> sides) : sides_(std::move(sides)) {
  if (sides_.empty())
    throw UserError("the list of scales is empty; expected sides such as 1,2,3,4");
  int64_t last = 0;
  begins_.push_back(0);
  for (const int64_t side : sides_) {
    if (side <= last || side > kLargestSide)
      throw UserError("scales {}: {} follows {}; expected strictly increasing sides from 1 to {}",
                      words(), side, last, kLargestSide);
    begins_.push_back(begins_.back() + side * side);
    last = side;
  }
}

std::string ScaleList::words() const { return fmt::format("{}", fmt::join(sides_, ",")); }

VarShape VarShape::from_depth(int64_t depth, TokenSpace tokens, int64_t classes,
                              bool shared_adaln) {
  if (depth < 1 || depth > kLargestDepth)
    throw UserError("depth {} of the model; expected 1 to {}", depth, kLargestDepth);
  VarShape shape;
  shape.depth = depth;
  shape.width = 64 * depth;
  shape.heads = depth;
  shape.classes = classes;
  shape.tokens = std::move(tokens);
  shape.shared_adaln = shared_adaln;
  shape.drop_path = 0.1 * static_cast<double>(depth) / 24;
  shape.check();
  return shape;
}

void VarShape::check() const {
  const auto need = [](bool holds, const char* what, int64_t value, const char* expected) {
    if (!holds) throw UserError("{} of the model is {}; expected {}", what, value, expected);
  };
  need(depth >= 1, "the depth", depth, "at least 1");
  need(width >= 1, "the width", width, "at least 1");
  need(heads >= 1 && width % heads == 0, "the number of heads", heads, "a divisor of the width");
  need(mlp_ratio >= 1, "the feed-forward ratio", mlp_ratio, "at least 1");
  need(classes >= 1, "the number of classes", classes, "at least 1");
  need(tokens.vocabulary >= 2, "the vocabulary", tokens.vocabulary, "at least 2");
  need(tokens.code_width >= 1, "the code width", tokens.code_width, "at least 1");
  need(tokens.scales.count() >= 1, "the number of scales", tokens.scales.count(), "at least 1");
  if (!(drop_path >= 0 && drop_path < 1))
    throw UserError("the drop path rate of the model is {}; expected a number in [0, 1)",
                    drop_path);
}

double VarShape::drop_path_at(int64_t block) const {
  VARSCALE_CHECK(block >= 0 && block < depth, "block {} of {}", block, depth);
  if (depth == 1) return 0;
  return drop_path * static_cast<double>(block) / static_cast<double>(depth - 1);
}

}  // namespace varscale::scaling
