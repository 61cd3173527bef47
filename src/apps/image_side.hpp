// The sets of images that var_eval's commands compare, as images, as features or as statistics, and the one network of
// all of them.
//
//   const ImageSide reference = open_image_side("--reference", "val.h5"), samples = open_image_side("--samples", "s");
//   const NetworkFacts facts = network_of_sides(option, &network, {&reference, &samples});
//
// Errors   UserError naming the option: a file or folder that is not there or not what is expected, too few images,
//          features of another network.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "evaluate/comparison.hpp"
#include "evaluate/image_features.hpp"
#include "evaluate/image_folder.hpp"
#include "evaluate/inception.hpp"
#include "evaluate/npz_set.hpp"
#include "feature_option.hpp"
#include "records/feature_file.hpp"

namespace varscale::apps {

// One set of a comparison: a folder or an .npz file, or what a network has made of images before.
struct ImageSide {
  std::string option;
  std::filesystem::path path;
  std::shared_ptr<const evaluate::ImageFolder> folder;  // one of these three
  std::shared_ptr<const evaluate::NpzSet> npz;
  std::shared_ptr<const records::FeatureFile> stored;
  evaluate::ImageRows rows;       // images to look at; none where there are features or statistics alone
  int64_t width = 0, height = 0;  // pixels; 0 where there are statistics alone

  int64_t size() const { return stored ? stored->info().images : rows.count; }
  bool has_statistics() const { return npz && npz->features(evaluate::NpzStatistics::kPool).has_value(); }
  std::string fingerprint() const;  // SHA-256 over names and sizes of the files, or over an .npz file
};
// By what the path is: a folder, a feature file (.h5), else an .npz file.
ImageSide open_image_side(const std::string& option, const std::filesystem::path& path);

// What samples are compared with, on the first rank: features, statistics that came without them, or both.
struct Reference {
  std::optional<evaluate::Gaussian> statistics, spatial;
  std::optional<evaluate::ImageFeatures> features;

  // Those of an .npz file, of so many features.
  void take_statistics(const ImageSide& side, int64_t dimension, int64_t spatial_dimension);
  evaluate::Comparison compare(const evaluate::NetworkFacts& network, const evaluate::ImageFeatures& samples) const;
};

// The network of all sides. `loaded` is null where none has images to look at; feature files must be of it, and agree
// in its name, which a file knows where the user does not say it.
evaluate::NetworkFacts network_of_sides(const FeatureOption& option, const evaluate::Inception* loaded,
                                        const std::vector<const ImageSide*>& sides);

std::string words(const evaluate::NetworkFacts& network);  // its name and the beginning of its identity

}  // namespace varscale::apps
