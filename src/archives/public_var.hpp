// The public VAR, recognised by the keys and shapes of its state dict.
//
//   const scaling::VarShape shape = recognise_var(source, {});      // every key and shape is checked
//   check_buffers(source, shape);
//
// Depth, width, heads, classes, vocabulary, code width, MLP ratio, shared AdaLN and q/k norm are read off shapes. The
// sides of the token maps come from ShapeHints, lvl_1L, the checkpoint's patch_nums, the published lists, or the only
// list that has so many maps and tokens, in this order.
//
// Errors   UserError naming the source: how many keys are missing, too many or of another shape, and the first; sides
//          or heads that the file does not tell (which option says them); buffers that are not the public ones.
#pragma once

#include <cstdint>
#include <vector>

#include "archives/tensor_source.hpp"
#include "scaling/shape.hpp"
#include "scaling/state.hpp"

namespace varscale::archives {

// What a user says of a file that does not say it.
struct ShapeHints {
  std::vector<int64_t> scales = {};  // empty: not said
  int64_t heads = 0;                 // 0: not said
};

scaling::VarShape recognise_var(const TensorSource& source, const ShapeHints& hints);

// Those that are there are what the shape makes them: levels, mask, zeros.
void check_buffers(const TensorSource& source, const scaling::VarShape& shape);

// The key lists of the source and of what is expected: the sentence about the first difference, or "".
std::string difference(const TensorSource& source, const std::vector<scaling::StateEntry>& expected,
                       const std::vector<std::string>& optional = {});

// The published lists of sides: of 256 and 512 pixels.
const std::vector<std::vector<int64_t>>& published_scales();

}  // namespace varscale::archives
