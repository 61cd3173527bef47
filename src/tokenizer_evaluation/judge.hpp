// A tokenizer judged on images by all ranks of a launch: errors, use of codes, SSIM, LPIPS and a Fréchet distance.
//
//   const Judgement judgement = judge(tokenizer, images, {.lpips = &lpips, .features = &inception}, *world);
//   if (world->rank() == 0) fmt::print("{}", judgement.words());
//
// LPIPS    losses/lpips.hpp, of the reconstruction in [-1, 1], clamped; mean over the images.
// Fréchet  evaluate/frechet.hpp between the images and their reconstructions, both rounded to uint8. Called "r" and the
//          name of the distance through that network: rFID for the published one alone, rFD-random for random weights.
// Ranks    Batch b is rank b % R's. Every round the ranks' figures and features are gathered, and joined on rank 0
//          in the order of the images: with equally many threads a rank the result has the same bits at any number of
//          ranks; otherwise, and for another batch size, convolutions round differently (1e-5 relative; the Fréchet
//          distance, a difference of large traces, 1e-3).
// Order    Collective. Every rank loads its own images; the judgement is rank 0's, the others' is empty.
// Memory   A batch, its features on every rank, and on the first the statistics of both sets (8 D^2 bytes each).
// Errors   UserError: no images, fewer than 2 for the Fréchet distance, images too small for LPIPS, one that cannot
//          be read (on its rank alone).
// Legend   B batch, N images, R ranks, S scales, V codes, D features.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "comm/communicator.hpp"
#include "evaluate/feature_network.hpp"
#include "losses/lpips.hpp"
#include "tokenizer/evaluate.hpp"

namespace varscale::tokenizer_evaluation {

struct JudgeOptions {
  int64_t limit = 0;  // the first images only; 0: all
  int64_t batch = 32;
  const losses::Lpips* lpips = nullptr;                // none: no LPIPS
  const evaluate::FeatureNetwork* features = nullptr;  // none: no Fréchet distance
  std::function<void(int64_t)> advance = {};           // told how many images are done in each round; may be empty
};

struct Perceptual {
  double distance = 0;
  std::string identity;  // of the weights
  bool is_made = false;  // weights made from a seed: comparable with no published figure
};

struct ReconstructionDistance {
  std::string name;  // "rFID", "rFD-random", "rFD-<network>"
  double value = 0;
  std::string network, identity;
  bool is_random = false;
};

struct Judgement {
  tokenizer::TokenizerReport report;
  std::optional<double> ssim;  // mean over the images; none where their sides are below 11 pixels
  std::optional<Perceptual> lpips;
  std::optional<ReconstructionDistance> frechet;

  std::string words() const;  // one figure a line, each with its network and what it compares with
  nlohmann::ordered_json json() const;
};

Judgement judge(const tokenizer::Vqvae& tokenizer, const tokenizer::ImageSource& images, const JudgeOptions& options,
                comm::Communicator& world);

}  // namespace varscale::tokenizer_evaluation
