// The shape of a VAR model from one number, its depth.
//
//   ScaleList scales({1, 2, 3, 4, 5, 6, 8, 10, 13, 16});        // 680 tokens
//   VarShape d16 = VarShape::from_depth(16, TokenSpace{4096, 32, scales}, /*classes=*/1000);
//
// Source   arXiv 2404.02905 section 5 and Eq. 8: w = 64 d, heads = d (so each is 64 wide), drop
//          path 0.1 d / 24.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace varscale::scaling {

inline constexpr int64_t kLargestSide = 4096;  // bounds that keep every count below inside int64
inline constexpr int64_t kLargestDepth = 1024;
inline constexpr int64_t kLargestTokens = int64_t{1} << 24;  // of an image
inline constexpr int64_t kLargestWidth = int64_t{1} << 17;
inline constexpr int64_t kLargestHeads = int64_t{1} << 14;
inline constexpr int64_t kLargestRatio = 64;
inline constexpr int64_t kLargestClasses = int64_t{1} << 32;
inline constexpr int64_t kLargestCodes = 65536;  // also of the code width

// The pyramid of token maps: side k is the height and width of map k. Non-empty, strictly
// increasing.
class ScaleList {
 public:
  ScaleList() = default;
  // UserError unless positive and strictly increasing.
  explicit ScaleList(std::vector<int64_t> sides);
  const std::vector<int64_t>& sides() const noexcept { return sides_; }
  int64_t count() const noexcept { return static_cast<int64_t>(sides_.size()); }
  int64_t side(int64_t k) const { return sides_.at(k); }
  int64_t last_side() const { return sides_.back(); }
  int64_t tokens() const noexcept { return begins_.empty() ? 0 : begins_.back(); }  // L
  int64_t begin(int64_t k) const { return begins_.at(k); }    // first token of map k
  int64_t end(int64_t k) const { return begins_.at(k + 1); }  // one past its last
  int64_t tokens_at(int64_t k) const { return end(k) - begin(k); }
  std::string words() const;  // "1,2,3,4"
  bool operator==(const ScaleList& other) const { return sides_ == other.sides_; }

 private:
  std::vector<int64_t> sides_;
  std::vector<int64_t> begins_;  // count() + 1 entries
};

// What a tokenizer fixes: vocabulary V, code width Cvae, pyramid.
struct TokenSpace {
  int64_t vocabulary = 4096;
  int64_t code_width = 32;
  ScaleList scales;
};

struct VarShape {
  int64_t depth = 0, width = 0, heads = 0;
  int64_t mlp_ratio = 4;
  int64_t classes = 1000;  // without the null class
  TokenSpace tokens;
  bool shared_adaln = false;  // one AdaLN projection for all blocks plus a table per block
  bool attn_l2_norm = true;   // unit-norm q and k with a learned scale per head
  double drop_path = 0;       // rate of the last block; earlier ones rise linearly from 0

  static VarShape from_depth(int64_t depth, TokenSpace tokens, int64_t classes,
                             bool shared_adaln = false);
  // UserError: a size below 1, heads that do not divide the width, a rate not in [0, 1).
  void check() const;
  int64_t head_width() const { return width / heads; }
  int64_t hidden() const { return mlp_ratio * width; }
  double drop_path_at(int64_t block) const;  // linspace(0, drop_path, depth)[block]
};

}  // namespace varscale::scaling
