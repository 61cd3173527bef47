#include "tokenizer_evaluation/judge.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "data/png.hpp"
#include "evaluate/frechet.hpp"
#include "evaluate/image_quality.hpp"

namespace varscale::tokenizer_evaluation {

using at::Tensor;
using tokenizer::ImageSource;
using tokenizer::Vqvae;

namespace {

constexpr int64_t kSsimWindow = 11;
constexpr int64_t kErrors = 3;  // columns of tokenizer::Measured::errors_B3
enum Column { kSsim = kErrors, kLpips, kColumns };

Tensor bytes_B3XX(const Tensor& image_B3XX) {
  return data::to_u8_BHWC(image_B3XX).permute({0, 3, 1, 2}).contiguous();
}

// A rank's batch of a round. Rows behind its images are zeros: all ranks send equally many.
struct Round {
  Tensor figures_BC, image_features_BD, reconstruction_features_BD;
};

class Judge {
 public:
  Judge(const Vqvae& tokenizer, const ImageSource& images, const JudgeOptions& options, comm::Communicator& world)
      : tokenizer_(tokenizer),
        images_(images),
        options_(options),
        world_(world),
        count_(tokenizer::images_judged(images, options.limit)),
        has_ssim_(tokenizer.config().image_side >= kSsimWindow),
        hits_SV_(at::zeros({static_cast<int64_t>(tokenizer.config().scales.size()), tokenizer.config().vocabulary},
                           at::kLong)),
        of_images_(options.features && world.rank() == 0 ? options.features->dimension() : 1),
        of_reconstructions_(options.features && world.rank() == 0 ? options.features->dimension() : 1) {
    const int64_t side = tokenizer.config().image_side;
    if (options.lpips && side < losses::Lpips::kLeastSide)
      throw base::UserError("LPIPS needs images of at least {} pixels, the tokenizer's have {}",
                            losses::Lpips::kLeastSide, side);
    if (options.features && count_ < 2)
      throw base::UserError("a Fréchet distance needs at least 2 images, there is 1");
  }

  Judgement run() {
    const at::NoGradGuard no_grad;
    const int64_t batches = (count_ + options_.batch - 1) / options_.batch, ranks = world_.size();
    for (int64_t first = 0; first < batches; first += ranks) {
      const Round mine = measure(first + world_.rank());
      collect(mine, first);
      if (options_.advance)
        options_.advance(std::min(count_, (first + ranks) * options_.batch) - first * options_.batch);
    }
    world_.all_reduce(hits_SV_, comm::Reduce::kSum, "use of codes").wait();
    return world_.rank() == 0 ? judgement() : Judgement{};
  }

 private:
  ImageSource::Batch images_of(int64_t batch) const {
    const int64_t begin = batch * options_.batch;
    std::vector<int64_t> numbers(std::max<int64_t>(0, std::min(options_.batch, count_ - begin)));
    std::iota(numbers.begin(), numbers.end(), begin);
    return {numbers, std::vector<int64_t>(numbers.size(), 0)};
  }

  Round measure(int64_t batch) {
    const int64_t features = options_.features ? options_.features->dimension() : 0;
    Round round{at::zeros({options_.batch, kColumns}, at::kDouble), at::zeros({options_.batch, features}),
                at::zeros({options_.batch, features})};
    const ImageSource::Batch numbers = images_of(batch);
    const auto count = static_cast<int64_t>(numbers.numbers.size());
    if (count == 0) return round;
    const Tensor image_B3XX = images_.load(numbers);
    if (const ImageSource::Batch next = images_of(batch + world_.size()); images_.prepare && !next.numbers.empty())
      images_.prepare(next);
    const tokenizer::Measured measured = tokenizer::measure(tokenizer_, image_B3XX);
    const Tensor& reconstruction_B3XX = measured.reconstruction_B3XX;
    hits_SV_.add_(measured.hits_SV);
    const Tensor rows_BC = round.figures_BC.slice(0, 0, count);
    rows_BC.slice(1, 0, kErrors).copy_(measured.errors_B3);
    if (has_ssim_)
      rows_BC.select(1, kSsim).copy_(evaluate::ssim(reconstruction_B3XX, image_B3XX, evaluate::kSigned));
    if (options_.lpips) rows_BC.select(1, kLpips).copy_(options_.lpips->distances(reconstruction_B3XX, image_B3XX));
    if (options_.features) {
      round.image_features_BD.slice(0, 0, count).copy_(options_.features->batch(bytes_B3XX(image_B3XX)));
      round.reconstruction_features_BD.slice(0, 0, count)
          .copy_(options_.features->batch(bytes_B3XX(reconstruction_B3XX)));
    }
    return round;
  }

  // The rows of the batches [first, first + R), one a rank, joined on rank 0 in their order.
  void collect(const Round& mine, int64_t first) {
    std::vector<comm::Gather> parts;
    const auto add = [&](const Tensor& rows_BC) {
      std::vector<int64_t> shape = rows_BC.sizes().vec();
      shape.insert(shape.begin(), world_.size());
      parts.push_back({at::empty(shape, rows_BC.options()), rows_BC});
    };
    add(mine.figures_BC);
    if (options_.features) add(mine.image_features_BD), add(mine.reconstruction_features_BD);
    world_.all_gather(parts, "figures of a round").wait();
    if (world_.rank() != 0) return;
    for (int64_t rank = 0; rank < world_.size(); ++rank) {
      const auto count = static_cast<int64_t>(images_of(first + rank).numbers.size());
      const auto rows = [&](size_t part) { return parts[part].out_RP[rank].slice(0, 0, count); };
      figures_.push_back(rows(0));
      if (options_.features) of_images_.add(rows(1)), of_reconstructions_.add(rows(2));
    }
  }

  Judgement judgement() {
    const Tensor figures_NC = at::cat(figures_);
    const auto mean = [&](Column column) { return figures_NC.select(1, column).mean().item<double>(); };
    Judgement result;
    result.report = tokenizer::summarise(figures_NC.slice(1, 0, kErrors), hits_SV_);
    if (has_ssim_) result.ssim = mean(kSsim);
    if (options_.lpips)
      result.lpips = {.distance = mean(kLpips),
                      .identity = options_.lpips->identity(),
                      .is_made = options_.lpips->identity().find(":made:") != std::string::npos};
    if (const evaluate::FeatureNetwork* network = options_.features)
      result.frechet = {
          .name = "r" + evaluate::frechet_name(*network),
          .value = evaluate::frechet_distance(of_images_.gaussian(), of_reconstructions_.gaussian()),
          .network = network->name(),
          .identity = network->identity(),
          .is_random = network->is_random()};
    return result;
  }

  const Vqvae& tokenizer_;
  const ImageSource& images_;
  const JudgeOptions& options_;
  comm::Communicator& world_;
  int64_t count_;
  bool has_ssim_;
  Tensor hits_SV_;
  // On rank 0.
  std::vector<Tensor> figures_;
  evaluate::GaussianStatistics of_images_, of_reconstructions_;
};

}  // namespace

Judgement judge(const Vqvae& tokenizer, const ImageSource& images, const JudgeOptions& options,
                comm::Communicator& world) {
  return Judge(tokenizer, images, options, world).run();
}

std::string Judgement::words() const {
  std::string text = fmt::format(
      "{} images: PSNR {:.2f} dB, mean squared error {:.5f}, mean absolute error {:.4f} (range -1 to 1)\n",
      report.images, report.psnr_db, report.mse, report.l1);
  text += ssim ? fmt::format("SSIM {:.4f}\n", *ssim)
               : fmt::format("no SSIM: its window takes {} pixels\n", kSsimWindow);
  if (lpips)
    text += fmt::format("LPIPS {:.4f} ({}){}\n", lpips->distance, lpips->identity,
                        lpips->is_made ? ": made weights, comparable with no published figure" : "");
  if (frechet)
    text += fmt::format("{} {:.6g} through {} ({}), {} images against their reconstructions{}\n", frechet->name,
                        frechet->value, frechet->network, frechet->identity.substr(0, 16), report.images,
                        frechet->is_random ? ": random weights, comparable with no published figure"
                                           : ": compare it at this number of images alone");
  return text;
}

nlohmann::ordered_json Judgement::json() const {
  nlohmann::ordered_json json = report.json();
  if (ssim) json["ssim"] = *ssim;
  if (lpips)
    json["lpips"] = {{"value", lpips->distance}, {"network", lpips->identity}, {"comparable", !lpips->is_made}};
  if (frechet)
    json["frechet"] = {
        {"name", frechet->name},
        {"value", frechet->value},
        {"network", {{"name", frechet->network}, {"identity", frechet->identity}, {"random", frechet->is_random}}},
        {"reference", "the same images"},
        {"comparable", !frechet->is_random}};
  return json;
}

}  // namespace varscale::tokenizer_evaluation
