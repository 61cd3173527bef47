// Scores a model on validation images: centre crop, no drop path, softmax and loss in float32,
// weights in the run's compute dtype; no label drop unless the public code's 10 % is asked for.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.hpp"
#include "data/batch.hpp"
#include "models/var/model.hpp"
#include "parallel/parallel.hpp"
#include "sweep/run_config.hpp"
#include "tokenizer/quantizer.hpp"

namespace varscale::train {

struct Scores {
  double loss_mean = 0, loss_tail = 0, err_mean = 0, err_tail = 0;
  std::vector<double> loss_scale, err_scale;  // one a scale
};


// Validates on `images` (their numbers in the validation set), divided among the ranks. Collective.
Scores validate(const models::Var& model, parallel::Parallel& parallel,
                const tokenizer::Quantizer& quantizer,
                const data::ValidationBatches& batches, const std::vector<int64_t>& images,
                const sweep::RunConfig& run, int64_t step, comm::Communicator& world);

// Sums of loss and correct answers per scale, float64 on the device of the loss: [2, S].
at::Tensor scale_sums(const at::Tensor& loss_N, const at::Tensor& correct_N, int64_t batch,
                      const scaling::ScaleList& scales);

// The means from sums over `images` images; sums_2S on the CPU.
Scores scores_from_sums(const at::Tensor& sums_2S, int64_t images,
                        const scaling::ScaleList& scales);

}  // namespace varscale::train
