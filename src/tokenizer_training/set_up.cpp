#include "tokenizer_training/set_up.hpp"

#include "base/error.hpp"

namespace varscale::tokenizer_training {

using base::UserError;
using tokenizer::ImageSource;

void TokenizerConfig::check() const {
  model.check();
  const auto scales = static_cast<int64_t>(model.scales.size());
  if (codebook.scale_dropout > 0 && codebook.scale_dropout_from >= scales)
    throw UserError("codebook.scale_dropout_from is {}, expected less than the {} scales, which all images keep then",
                    codebook.scale_dropout_from, scales);
  if (optimizer.warmup_steps >= train.steps)
    throw UserError("optimizer.warmup_steps is {}, expected less than train.steps, {}", optimizer.warmup_steps,
                    train.steps);
  if (codebook.start_step >= train.steps)
    throw UserError("codebook.start_step is {}, expected less than train.steps, {}", codebook.start_step, train.steps);
  if (adversarial.is_on() && adversarial.start_step >= train.steps)
    throw UserError("adversarial.start_step is {}, expected less than train.steps, {}", adversarial.start_step,
                    train.steps);
  if (loss.lpips > 0 && model.image_side < losses::Lpips::kLeastSide)
    throw UserError("loss.lpips is {} and model.image_side {}, expected at least {} pixels for a perceptual distance",
                    loss.lpips, model.image_side, losses::Lpips::kLeastSide);
}

at::Device device_of(const TokenizerConfig& config) {
  return config.train.device == "cpu" ? at::Device(at::kCPU) : comm::cuda_device();
}

at::ScalarType compute_dtype(const TokenizerConfig& config) {
  return config.train.precision == "bf16" ? at::kBFloat16 : at::kFloat;
}

tokenizer::LeafOptions leaf_options(const TokenizerConfig& config) {
  return {.device = device_of(config), .weights = compute_dtype(config), .allocate = false};
}

std::optional<losses::Lpips> read_lpips(const TokenizerConfig& config) {
  const LossConfig& loss = config.loss;
  if (loss.lpips == 0) return std::nullopt;
  const losses::NetworkOptions options{.device = device_of(config), .compute = compute_dtype(config)};
  if (loss.vgg_weights == "made") return losses::Lpips::hash_made(config.train.seed, options);
  if (loss.vgg_weights.empty())
    throw UserError(
        "loss.lpips is {}, which needs loss.vgg_weights, a file of VGG16's weights under torchvision's names, with "
        "LPIPS's heads in it or in loss.lpips_heads; loss.lpips: 0 switches the perceptual term off, and rFID then "
        "compares with nobody's",
        loss.lpips);
  std::vector<std::filesystem::path> files{loss.vgg_weights};
  if (!loss.lpips_heads.empty()) files.emplace_back(loss.lpips_heads);
  return losses::Lpips(losses::read_weights(files), options);
}

std::string record_of(const TokenizerConfig& config, const ImageSource& images,
                      const std::optional<losses::Lpips>& lpips, const std::optional<Adversary>& adversary) {
  nlohmann::ordered_json record = base::dump_config(config, /*identity_only=*/true);
  record["images"] = {{"count", images.count}, {"fingerprint", images.fingerprint}};
  if (lpips) record["networks"]["lpips"] = lpips->identity();
  if (adversary && !adversary->identity().empty()) record["networks"]["dino"] = adversary->identity();
  return record.dump();
}

}  // namespace varscale::tokenizer_training
