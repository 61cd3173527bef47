#include "evaluate/comparison.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::evaluate {

namespace {

void require_enough(int64_t images) {
  if (images < fewest_images())
    throw base::UserError("a comparison needs at least {} images in each set, one has {}", fewest_images(), images);
}

Comparison of_network(const NetworkFacts& network, const ImageFeatures& samples) {
  Comparison result;
  result.network = network.name;
  result.identity = network.identity;
  result.frechet_name = frechet_name(network);
  result.spatial_name = spatial_name(network);
  result.random_weights = network.is_random;
  result.sample_images = samples.statistics.count();
  require_enough(result.sample_images);
  if (network.name == kFidNetwork && !network.is_random && samples.logits_NC.defined())
    result.inception_score = shuffled_inception_score(samples.logits_NC);
  return result;
}

// The figures that need the features of both sets one by one.
void compare_points(const ImageFeatures& reference, const ImageFeatures& samples, Comparison& result) {
  result.reference_images = reference.statistics.count();
  require_enough(result.reference_images);
  const auto [fewer, more] = std::minmax(result.reference_images, result.sample_images);
  KernelOptions& kernel = result.kernel_options;
  kernel.subset_size = std::min(kernel.subset_size, fewer);
  if (kernel.subset_size == more) kernel.subsets = 1;
  result.kernel = kernel_distance(reference.features_ND, samples.features_ND, kernel);
  const NeighbourOptions neighbours;
  result.neighbours = neighbours.k;
  result.neighbourhoods = precision_recall(reference.features_ND, samples.features_ND, neighbours);
}

}  // namespace

int64_t fewest_images() noexcept { return NeighbourOptions().k + 1; }

Comparison compare(const NetworkFacts& network, const ImageFeatures& reference, const ImageFeatures& samples) {
  Comparison result = of_network(network, samples);
  compare_points(reference, samples, result);
  result.frechet = frechet_distance(reference.statistics.gaussian(), samples.statistics.gaussian());
  if (reference.spatial && samples.spatial)
    result.spatial = frechet_distance(reference.spatial->gaussian(), samples.spatial->gaussian());
  return result;
}

Comparison compare(const NetworkFacts& network, const Gaussian& statistics, const ImageFeatures* images,
                   const ImageFeatures& samples, const Gaussian* spatial) {
  Comparison result = of_network(network, samples);
  if (images != nullptr) compare_points(*images, samples, result);
  result.by_statistics = true;
  result.frechet = frechet_distance(statistics, samples.statistics.gaussian());
  if (spatial != nullptr && samples.spatial) result.spatial = frechet_distance(*spatial, samples.spatial->gaussian());
  return result;
}

InceptionScore shuffled_inception_score(const Tensor& logits_NC) {
  const int64_t images = logits_NC.size(0);
  const base::Permutation order(images, 0, "inception_score");
  std::vector<int64_t> rows(images);
  for (int64_t i = 0; i < images; ++i) rows[i] = static_cast<int64_t>(order(i));
  return inception_score(at::softmax(logits_NC.index_select(0, at::tensor(rows, at::kLong)).to(at::kDouble), 1));
}

std::string Comparison::words() const {
  std::string text = fmt::format("{:<10} {:.6g}\n", frechet_name, frechet);
  if (spatial) text += fmt::format("{:<10} {:.6g}\n", spatial_name, *spatial);
  if (kernel)
    text += fmt::format("{:<10} {:.6g} ({})\n", "KID", kernel->mean,
                        kernel_options.subsets == 1
                            ? "all images of both sets"
                            : fmt::format("{} subsets of {}, deviation {:.2g}", kernel_options.subsets,
                                          kernel_options.subset_size, kernel->deviation));
  if (neighbourhoods) {
    text += fmt::format("{:<10} {:.4f} (k = {})\n", "precision", neighbourhoods->precision, neighbours);
    text += fmt::format("{:<10} {:.4f}\n", "recall", neighbourhoods->recall);
  } else {
    text += "no KID, precision and recall: the reference has statistics alone, and they take its images\n";
  }
  if (inception_score)
    text += fmt::format("{:<10} {:.4f} (of the samples, {} parts of up to 5000, deviation {:.2g})\n", "IS",
                        inception_score->mean, inception_score->parts.size(), inception_score->deviation);
  text += fmt::format("network: {} ({})\n", network, identity.substr(0, 16));
  if (by_statistics)
    return text + fmt::format(
                      "{} is to the file's statistics, which must be of this network, and depends on the number of "
                      "images: compare it only at {} samples, against the same statistics\n",
                      frechet_name, sample_images);
  return text + fmt::format(
                    "{} depends on the numbers of images: compare it only at {} reference images and {} samples, "
                    "against the same reference\n",
                    frechet_name, reference_images, sample_images);
}

nlohmann::ordered_json Comparison::json() const {
  nlohmann::ordered_json json;
  json["frechet"] = {{"name", frechet_name}, {"value", frechet}, {"by_statistics", by_statistics}};
  if (kernel)
    json["kid"] = {{"value", kernel->mean},
                   {"deviation", kernel->deviation},
                   {"subsets", kernel_options.subsets},
                   {"subset_size", kernel_options.subset_size},
                   {"seed", kernel_options.seed}};
  if (neighbourhoods) {
    json["precision"] = neighbourhoods->precision;
    json["recall"] = neighbourhoods->recall;
    json["k"] = neighbours;
  }
  json["network"] = {{"name", network}, {"identity", identity}, {"random", random_weights}};
  json["reference_images"] = reference_images;
  json["sample_images"] = sample_images;
  if (spatial) json["spatial_frechet"] = {{"name", spatial_name}, {"value", *spatial}};
  if (inception_score) {
    json["inception_score"] = {{"value", inception_score->mean},
                               {"deviation", inception_score->deviation},
                               {"parts", inception_score->parts}};
  }
  return json;
}

}  // namespace varscale::evaluate
