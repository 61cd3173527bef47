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
  if (tokens() > kLargestTokens)
    throw UserError("scales {}: {} tokens an image; expected at most {}", words(), tokens(), kLargestTokens);
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
  const auto need = [](const char* what, int64_t value, int64_t least, int64_t most) {
    if (value < least) throw UserError("{} of the model is {}; expected at least {}", what, value, least);
    if (value > most) throw UserError("{} of the model is {}; expected at most {}", what, value, most);
  };
  need("the depth", depth, 1, kLargestDepth);
  need("the width", width, 1, kLargestWidth);
  if (heads < 1 || width % heads != 0)
    throw UserError("the number of heads of the model is {}; expected a divisor of the width", heads);
  need("the number of heads", heads, 1, kLargestHeads);
  need("the feed-forward ratio", mlp_ratio, 1, kLargestRatio);
  need("the number of classes", classes, 1, kLargestClasses);
  need("the vocabulary", tokens.vocabulary, 2, kLargestCodes);
  need("the code width", tokens.code_width, 1, kLargestCodes);
  need("the number of scales", tokens.scales.count(), 1, kLargestTokens);
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
