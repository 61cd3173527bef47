#include "archives/public_var.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>

#include "archives/printable.hpp"
#include "base/error.hpp"

namespace varscale::archives {

using base::UserError;
using scaling::ScaleList;
using scaling::StateEntry;
using scaling::StateKind;
using scaling::VarShape;

namespace {

int64_t size_of(const TensorSource& source, const std::string& name, size_t dims, size_t axis) {
  const auto& shape = source.at(name).shape;
  if (shape.size() != dims)
    throw UserError("{}: {} has shape [{}], expected {} dimensions", source.where(), name, fmt::join(shape, ", "),
                    dims);
  return shape[axis];
}

int64_t depth_of(const TensorSource& source) {
  constexpr std::string_view kBlocks = "blocks.";
  int64_t depth = 0;
  for (const auto& [name, tensor] : source.tensors()) {
    if (!name.starts_with(kBlocks)) continue;
    int64_t index = -1;
    const char* begin = name.data() + kBlocks.size();
    const auto [end, error] = std::from_chars(begin, name.data() + name.size(), index);
    if (error != std::errc() || *end != '.' || index < 0 || index >= scaling::kLargestDepth)
      throw UserError("{}: key {} is not of a block; expected blocks.<number>.", source.where(), printable(name));
    depth = std::max(depth, index + 1);
  }
  return depth;
}

// Sides of the maps from the number of each token's map.
std::vector<int64_t> sides_of_levels(const TensorSource& source, int64_t maps) {
  const std::vector<int64_t> levels = source.read_integers("lvl_1L");
  std::vector<int64_t> tokens(static_cast<size_t>(maps), 0);
  int64_t before = 0;
  for (const int64_t level : levels) {
    if (level < before || level >= maps)
      throw UserError("{}: lvl_1L has {} after {}; expected the numbers 0 to {} of the maps, ascending", source.where(),
                      level, before, maps - 1);
    before = level;
    ++tokens[static_cast<size_t>(level)];
  }
  std::vector<int64_t> sides;
  for (const int64_t count : tokens) {
    const auto side = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(count))));
    if (side < 1 || side * side != count)
      throw UserError("{}: lvl_1L has a map of {} tokens, which is no square", source.where(), count);
    sides.push_back(side);
  }
  return sides;
}

// Adds the lists that go on with sides above `last` and have `maps` more maps and `tokens` more tokens; gives up after
// some thousand trials, with more than one result.
void find_lists(int64_t last, int64_t maps, int64_t tokens, std::vector<int64_t>& sides,
                std::vector<std::vector<int64_t>>& found, int& trials) {
  if (found.size() > 1) return;
  if (++trials > 100'000) return void(found.resize(2));
  if (maps == 0) {
    if (tokens == 0) found.push_back(sides);
    return;
  }
  for (int64_t side = last + 1; side * side * maps <= tokens; ++side) {
    sides.push_back(side);
    find_lists(side, maps - 1, tokens - side * side, sides, found, trials);
    sides.pop_back();
  }
}

std::vector<int64_t> scales_of(const TensorSource& source, const ShapeHints& hints, int64_t maps, int64_t tokens,
                               int64_t first_tokens) {
  if (!hints.scales.empty()) return hints.scales;
  if (source.find("lvl_1L")) return sides_of_levels(source, maps);
  if (source.scales()) return *source.scales();
  for (const std::vector<int64_t>& sides : published_scales())
    if (static_cast<int64_t>(sides.size()) == maps && ScaleList(sides).tokens() == tokens) return sides;
  std::vector<std::vector<int64_t>> found;
  const auto first = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(first_tokens))));
  if (maps >= 1 && tokens <= scaling::kLargestTokens && first >= 1 && first * first == first_tokens) {
    std::vector<int64_t> sides = {first};
    int trials = 0;
    find_lists(first, maps - 1, tokens - first_tokens, sides, found, trials);
  }
  if (found.size() == 1) return found.front();
  throw UserError("{}: {} lists of {} maps have {} tokens; give the sides by --scales, as in 1,2,3,4", source.where(),
                  found.empty() ? "no" : "several", maps, tokens);
}

}  // namespace

const std::vector<std::vector<int64_t>>& published_scales() {
  static const std::vector<std::vector<int64_t>> lists = {{1, 2, 3, 4, 5, 6, 8, 10, 13, 16},
                                                          {1, 2, 3, 4, 6, 9, 13, 18, 24, 32}};
  return lists;
}

std::string difference(const TensorSource& source, const std::vector<StateEntry>& expected,
                       const std::vector<std::string>& optional) {
  std::vector<std::string> missing, shapes, extra;
  std::set<std::string, std::less<>> known(optional.begin(), optional.end());
  for (const StateEntry& entry : expected) {
    known.insert(entry.name);
    const TensorSource::Tensor* tensor = source.find(entry.name);
    if (!tensor) {
      if (entry.kind == StateKind::kParameter) missing.push_back(entry.name);
    } else if (tensor->shape != entry.shape) {
      shapes.push_back(fmt::format("{} has shape [{}], expected [{}]", entry.name, fmt::join(tensor->shape, ", "),
                                   fmt::join(entry.shape, ", ")));
    }
  }
  for (const auto& [name, tensor] : source.tensors())
    if (!known.contains(name)) extra.push_back(printable(name));
  const auto more = [](size_t count) { return count > 1 ? fmt::format(" (and {} more)", count - 1) : ""; };
  if (!missing.empty())
    return fmt::format("{}: key {} is missing{}", source.where(), missing.front(), more(missing.size()));
  if (!extra.empty())
    return fmt::format("{}: key {} is none of the public model's{}", source.where(), extra.front(), more(extra.size()));
  if (!shapes.empty()) return fmt::format("{}: {}{}", source.where(), shapes.front(), more(shapes.size()));
  return "";
}

VarShape recognise_var(const TensorSource& source, const ShapeHints& hints) {
  VarShape shape;
  shape.depth = depth_of(source);
  const int64_t tokens = size_of(source, "pos_1LC", 3, 1);
  shape.width = size_of(source, "pos_1LC", 3, 2);
  const int64_t maps = size_of(source, "lvl_embed.weight", 2, 0);
  shape.classes = size_of(source, "class_emb.weight", 2, 0) - 1;
  shape.shared_adaln = source.find("shared_ada_lin.1.weight") != nullptr;
  constexpr const char* kScale = "blocks.0.attn.scale_mul_1H11";
  shape.attn_l2_norm = source.find(kScale) != nullptr;
  if (shape.attn_l2_norm) {
    shape.heads = size_of(source, kScale, 4, 1);
    if (hints.heads != 0 && hints.heads != shape.heads)
      throw UserError("{}: {} is of {} heads, --heads says {}", source.where(), kScale, shape.heads, hints.heads);
  } else if (hints.heads == 0) {
    throw UserError("{}: without {} nothing tells how many heads there are; give them by --heads", source.where(),
                    kScale);
  } else {
    shape.heads = hints.heads;
  }
  const int64_t hidden = size_of(source, "blocks.0.ffn.fc1.weight", 2, 0);
  shape.mlp_ratio = shape.width > 0 ? hidden / shape.width : 0;
  try {
    const std::vector<int64_t> sides = scales_of(source, hints, maps, tokens, size_of(source, "pos_start", 3, 1));
    shape.tokens = {size_of(source, "head.weight", 2, 0), size_of(source, "word_embed.weight", 2, 1), ScaleList(sides)};
    if (shape.tokens.scales.count() != maps || shape.tokens.scales.tokens() != tokens)
      throw UserError("{} maps with {} tokens are in the file, the sides {} are {} with {}", maps, tokens,
                      shape.tokens.scales.words(), shape.tokens.scales.count(), shape.tokens.scales.tokens());
    shape.check();
  } catch (const UserError& error) {
    const std::string sentence = error.what();
    throw UserError(sentence.starts_with(source.where()) ? sentence : source.where() + ": " + sentence);
  }
  if (const std::string sentence = difference(source, public_state(shape)); !sentence.empty())
    throw UserError(sentence);
  return shape;
}

void check_buffers(const TensorSource& source, const VarShape& shape) {
  const std::vector<int64_t> levels = token_levels(shape.tokens.scales);
  for (const StateEntry& entry : public_state(shape)) {
    if (entry.kind == StateKind::kParameter || !source.find(entry.name)) continue;
    bool right = true;
    std::string_view expected;
    if (entry.kind == StateKind::kLevels) {
      right = source.read_integers(entry.name) == levels;
      expected = "the number of each token's map";
    } else {
      const std::vector<float> values = source.read_float(entry.name);
      const size_t row = entry.kind == StateKind::kMask ? levels.size() : values.size();
      for (size_t i = 0; i < values.size() && right; ++i) {
        const bool hidden = entry.kind == StateKind::kMask && levels[i / row] < levels[i % row];
        right = values[i] == (hidden ? -std::numeric_limits<float>::infinity() : 0.0f);
      }
      expected = entry.kind == StateKind::kMask ? "0 where a map sees another and minus infinity elsewhere" : "zeros";
    }
    if (!right)
      throw UserError("{}: {} is not what the model computes with: expected {}", source.where(), entry.name, expected);
  }
}

}  // namespace varscale::archives
