#include "train/validate.hpp"

#include <ATen/ATen.h>

#include "nn/async.hpp"
#include "nn/functional.hpp"
#include "parallel/parallel.hpp"

namespace varscale::train {

namespace {
constexpr double kPublicLabelDrop =
    0.1;  // what the public code's forward drops even while validating
}

at::Tensor scale_sums(const at::Tensor& loss_N, const at::Tensor& correct_N, int64_t batch,
                      const scaling::ScaleList& scales) {
  at::NoGradGuard no_grad;
  const at::Tensor per_token_2L =
      at::stack({loss_N.detach().view({batch, -1}).sum(0, false, at::kDouble),
                 correct_N.view({batch, -1}).sum(0, false, at::kDouble)});
  at::Tensor sums_2S = at::zeros({2, scales.count()}, per_token_2L.options());
  for (int64_t k = 0; k < scales.count(); ++k) {
    sums_2S.select(1, k).copy_(per_token_2L.slice(1, scales.begin(k), scales.end(k)).sum(1));
  }
  return sums_2S;
}

Scores scores_from_sums(const at::Tensor& sums_2S, int64_t images,
                        const scaling::ScaleList& scales) {
  const auto sums = sums_2S.accessor<double, 2>();
  const auto count = static_cast<double>(images);
  Scores scores;
  double loss = 0, correct = 0;
  for (int64_t k = 0; k < scales.count(); ++k) {
    const double tokens = count * static_cast<double>(scales.tokens_at(k));
    scores.loss_scale.push_back(sums[0][k] / tokens);
    scores.err_scale.push_back(1 - sums[1][k] / tokens);
    loss += sums[0][k];
    correct += sums[1][k];
  }
  scores.loss_mean = loss / (count * static_cast<double>(scales.tokens()));
  scores.err_mean = 1 - correct / (count * static_cast<double>(scales.tokens()));
  scores.loss_tail = scores.loss_scale.back();
  scores.err_tail = scores.err_scale.back();
  return scores;
}

Scores validate(const models::Var& model, parallel::Parallel& parallel,
                const tokenizer::Quantizer& quantizer, const data::ValidationBatches& batches,
                const std::vector<int64_t>& images, const sweep::RunConfig& run, int64_t step,
                comm::Communicator& world) {
  at::NoGradGuard no_grad;
  const scaling::ScaleList& scales = model.shape().tokens.scales;
  const models::ForwardOptions options{
      .compute = run.train.precision == "bf16" ? at::kBFloat16 : at::kFloat,
      .drop_path_SB = {},
      .run_block = parallel::block_runner(parallel)};
  const at::Device device = model.parameters().front().tensor.device();
  const auto total = static_cast<int64_t>(images.size());
  const parallel::MicroBatches passes(total, run.eval.batch, world);
  at::Tensor sums_2S =
      at::zeros({2, scales.count()}, at::TensorOptions(at::kDouble).device(device));
  parallel.begin_forward();
  for (int64_t pass = 0; pass < passes.passes(); ++pass) {
    const parallel::Share rows = passes.rows(pass);
    const bool counted = rows.count() > 0;
    const data::Batch batch = batches.load(
        counted ? std::vector<int64_t>(images.begin() + rows.begin, images.begin() + rows.end)
                : std::vector<int64_t>{images.front()});
    at::Tensor labels_B = batch.labels_B;
    if (run.eval.label_drop == "public") {
      labels_B = models::drop_labels(labels_B, model.shape().classes, kPublicLabelDrop,
                                     run.train.seed, step, batch.sample_ids);
    }
    const at::Tensor tokens_BL = nn::to_device(batch.tokens_BL, device);
    const at::Tensor logits_BLV =
        model.forward(nn::to_device(labels_B, device), quantizer.teacher_input(tokens_BL), options);
    if (!counted) continue;
    const nn::TokenScores scores = nn::score_and_consume(logits_BLV.flatten(0, 1), tokens_BL.flatten());
    sums_2S += scale_sums(scores.loss_N, scores.correct_N, rows.count(), scales);
  }
  parallel.end_forward();
  world.all_reduce(sums_2S, comm::Reduce::kSum, "validation sums").wait();
  return scores_from_sums(sums_2S.cpu(), total, scales);
}

}  // namespace varscale::train
