#include "train/initial_weights.hpp"

#include <ATen/ATen.h>

#include "archives/weights_file.hpp"
#include "base/error.hpp"

namespace varscale::train {

void load_initial_weights(const sweep::ModelConfig& model, const scaling::VarShape& shape,
                          const std::vector<parallel::Owned>& owned, bool verify) {
  at::NoGradGuard no_grad;
  const archives::WeightsFile file(model.init_from);
  file.check_fits(shape);
  if (file.fingerprint() != model.init_fingerprint)
    throw base::UserError("{}: its weights have changed since the run was planned; start again", model.init_from);
  if (verify) file.verify();
  for (const parallel::Owned& part : owned) {
    const std::span<const float> values = file.values(part.name);
    const auto first = static_cast<size_t>(part.first_element()), count = static_cast<size_t>(part.weight.numel());
    VARSCALE_CHECK(part.weight.is_contiguous() && first + count <= values.size(), "rows of {}", part.name);
    // The view is of read-only memory and only copied from.
    const at::Tensor view = at::from_blob(const_cast<float*>(values.data() + first), part.weight.sizes(), at::kFloat);
    part.weight.copy_(view);
  }
}

}  // namespace varscale::train
