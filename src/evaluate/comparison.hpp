// A set of samples against a reference set, through one network: every distance that features alone give.
//
//   const ImageFeatures reference = features_of(network, images, 16);    // image_features.hpp
//   const Comparison result = compare(network.facts(), reference, samples);
//   fmt::print("{}", result.words());
//
//   compare(network, file.gaussian(NpzStatistics::kPool, network.dimension()), nullptr, samples);   // npz_set.hpp
//
// sFID     Over spatial features, where the network has them: the same Fréchet distance, which sees where in the image
//          something is (Nash et al. 2021, arXiv 2103.03841; the layer as openai/guided-diffusion
//          evaluations/evaluator.py takes it).
// Errors   UserError: a set of too few images (fewest_images()).
// Legend   N images, D features, E spatial features, C classes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "evaluate/feature_network.hpp"
#include "evaluate/frechet.hpp"
#include "evaluate/image_features.hpp"
#include "evaluate/inception_score.hpp"
#include "evaluate/kernel_distance.hpp"
#include "evaluate/precision_recall.hpp"

namespace varscale::evaluate {

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
  std::optional<InceptionScore> inception_score;  // of the samples

  std::string words() const;  // one figure a line, then what they may be compared with
  nlohmann::ordered_json json() const;
};

// KID takes 100 subsets of 1000, or of the smaller set where that has fewer images; one, if that is both sets whole.
// The Inception score is that of the published network alone.
Comparison compare(const NetworkFacts& network, const ImageFeatures& reference, const ImageFeatures& samples);
inline Comparison compare(const FeatureNetwork& network, const ImageFeatures& reference, const ImageFeatures& samples) {
  return compare(network.facts(), reference, samples);
}
// With statistics that came with the reference. `images` of it, if there are any, give KID, precision and recall, as in
// ADM's evaluator; without (null) there are the Fréchet distances alone. `spatial`: statistics of the spatial features
// that came with it; null: none.
Comparison compare(const NetworkFacts& network, const Gaussian& statistics, const ImageFeatures* images,
                   const ImageFeatures& samples, const Gaussian* spatial = nullptr);
inline Comparison compare(const FeatureNetwork& network, const Gaussian& statistics, const ImageFeatures* images,
                          const ImageFeatures& samples, const Gaussian* spatial = nullptr) {
  return compare(network.facts(), statistics, images, samples, spatial);
}

// The score of a set in parts of 5000, over one fixed shuffle of its rows, since folders are sorted by class.
InceptionScore shuffled_inception_score(const Tensor& logits_NC);

int64_t fewest_images() noexcept;  // that a set must have

}  // namespace varscale::evaluate
