// A run that begins with given weights: model.init_from.
#pragma once

#include <vector>

#include "parallel/parallel.hpp"
#include "scaling/shape.hpp"
#include "sweep/run_config.hpp"

namespace varscale::train {

// Fills the owned rows from the file, of which nothing else is read; with `verify` all of it, to compare the values
// with the fingerprint. UserError: no such file, another model's, or not the weights that the run was planned with.
void load_initial_weights(const sweep::ModelConfig& model, const scaling::VarShape& shape,
                          const std::vector<parallel::Owned>& owned, bool verify);

}  // namespace varscale::train
