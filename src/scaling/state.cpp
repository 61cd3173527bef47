#include "scaling/state.hpp"

#include <fmt/format.h>

namespace varscale::scaling {

std::vector<StateEntry> public_state(const VarShape& shape) {
  shape.check();
  const int64_t C = shape.width, H = shape.heads, F = shape.hidden(), L = shape.tokens.scales.tokens();
  std::vector<StateEntry> state = {{"pos_start", {1, shape.tokens.scales.tokens_at(0), C}},
                                   {"pos_1LC", {1, L, C}},
                                   {"lvl_1L", {1, L}, StateKind::kLevels},
                                   {"attn_bias_for_masking", {1, 1, L, L}, StateKind::kMask},
                                   {"word_embed.weight", {C, shape.tokens.code_width}},
                                   {"word_embed.bias", {C}},
                                   {"class_emb.weight", {shape.classes + 1, C}},
                                   {"lvl_embed.weight", {shape.tokens.scales.count(), C}}};
  const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
    state.push_back({name + ".weight", {out, in}});
    state.push_back({name + ".bias", {out}});
  };
  if (shape.shared_adaln) linear("shared_ada_lin.1", 6 * C, C);
  for (int64_t i = 0; i < shape.depth; ++i) {
    const std::string block = fmt::format("blocks.{}.", i);
    if (shape.shared_adaln) state.push_back({block + "ada_gss", {1, 1, 6, C}});
    if (shape.attn_l2_norm) state.push_back({block + "attn.scale_mul_1H11", {1, H, 1, 1}});
    state.push_back({block + "attn.q_bias", {C}});
    state.push_back({block + "attn.v_bias", {C}});
    state.push_back({block + "attn.zero_k_bias", {C}, StateKind::kZeroBias});
    state.push_back({block + "attn.mat_qkv.weight", {3 * C, C}});
    linear(block + "attn.proj", C, C);
    linear(block + "ffn.fc1", F, C);
    linear(block + "ffn.fc2", C, F);
    if (!shape.shared_adaln) linear(block + "ada_lin.1", 6 * C, C);
  }
  linear("head_nm.ada_lin.1", 2 * C, C);
  linear("head", shape.tokens.vocabulary, C);
  return state;
}

std::vector<StateEntry> parameters_of(const VarShape& shape) {
  std::vector<StateEntry> state = public_state(shape);
  std::erase_if(state, [](const StateEntry& entry) { return entry.kind != StateKind::kParameter; });
  return state;
}

std::vector<int64_t> token_levels(const ScaleList& scales) {
  std::vector<int64_t> levels;
  for (int64_t k = 0; k < scales.count(); ++k) levels.insert(levels.end(), static_cast<size_t>(scales.tokens_at(k)), k);
  return levels;
}

}  // namespace varscale::scaling
