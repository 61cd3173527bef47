// A set of samples against a reference set, through one network: every distance that features alone give.
//
//   const ImageRows rows{folder.size(), [&](int64_t begin, int64_t count) { return folder.batch(begin, count); }};
//   const ImageFeatures reference = features_of(network, rows, 16);
//   const Comparison result = compare(network, reference, samples);
//   fmt::print("{}", result.words());
//
//   compare(network, file.gaussian(NpzStatistics::kPool, network.dimension()), nullptr, samples);   // npz_set.hpp
//
// sFID     Over spatial features, where the network has them: the same Fréchet distance, which sees where in the image
//          something is (Nash et al. 2021, arXiv 2103.03841; the layer as openai/guided-diffusion
//          evaluations/evaluator.py takes it).
// Memory   Images are read in batches; the features of all of them are kept (4 D bytes an image), which precision,
//          recall and KID need, and of the spatial ones 8 E^2 bytes a set.
// Errors   UserError: a set of too few images (fewest_images()).
// Legend   N images, D features, E spatial features, C classes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "evaluate/feature_network.hpp"
#include "evaluate/frechet.hpp"
#include "evaluate/inception_score.hpp"
#include "evaluate/kernel_distance.hpp"
#include "evaluate/precision_recall.hpp"

namespace varscale::evaluate {

// Images by number: batch(begin, count) gives uint8 [B,3,H,W], at most to the last.
struct ImageRows {
  int64_t count = 0;
  std::function<Tensor(int64_t begin, int64_t count)> batch;
};

struct ImageFeatures {
  Tensor features_ND;  // float32
  GaussianStatistics statistics;
  std::optional<GaussianStatistics> spatial = {};  // of E features; where the network has them
};
// `advance` is told how many images are done with each batch; may be empty.
ImageFeatures features_of(const FeatureNetwork& network, const ImageRows& images, int64_t batch,
                          const std::function<void(int64_t)>& advance = {});

struct Comparison {
  std::string network, identity, frechet_name, spatial_name;
  bool random_weights = false;
  int64_t reference_images = 0, sample_images = 0;  // 0 of the reference: it has statistics alone
  bool by_statistics = false;  // the Fréchet distance is to given statistics, of an unknown number of images
  double frechet = 0;
  std::optional<double> spatial;  // Fréchet distance of the spatial features, where both sides have them
  KernelOptions kernel_options;
  std::optional<KernelDistance> kernel;  // this and the next two lines: where the reference has images
  int64_t neighbours = 0;
  std::optional<PrecisionRecall> neighbourhoods;
  std::optional<InceptionScore> inception_score;  // of the samples; where the network knows classes

  std::string words() const;  // one figure a line, then what they may be compared with
  nlohmann::ordered_json json() const;
};

// KID takes 100 subsets of 1000, or of the smaller set where that has fewer images; one, if that is both sets whole.
Comparison compare(const FeatureNetwork& network, const ImageFeatures& reference, const ImageFeatures& samples);
// With statistics that came with the reference. `images` of it, if there are any, give KID, precision and recall, as in
// ADM's evaluator; without (null) there are the Fréchet distances alone. `spatial`: statistics of the spatial features
// that came with it; null: none.
Comparison compare(const FeatureNetwork& network, const Gaussian& statistics, const ImageFeatures* images,
                   const ImageFeatures& samples, const Gaussian* spatial = nullptr);

// The score of a set in parts of 5000, over one fixed shuffle of its rows, since folders are sorted by class.
InceptionScore shuffled_inception_score(const Tensor& logits_NC);

int64_t fewest_images() noexcept;  // that a set must have

}  // namespace varscale::evaluate
