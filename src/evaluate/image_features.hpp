// What a network makes of a set of images: over the ranks of a launch, or read from a file of it.
//
//   const ImageRows rows{folder.size(), [&](int64_t begin, int64_t count) { return folder.batch(begin, count); }};
//   const ImageFeatures features = features_of(network, rows, 16, *world);     // the first rank has them
//   write_features("val.h5", network, {rows, ...}, 16, *world);                // the same, into a file
//   const ImageFeatures again = stored_features(records::FeatureFile("val.h5"));
//
// Groups   Images [g i, g (i + 1)) go through the network together and their statistics are joined group by group in
//          order, whoever computes what: features and figures are the same, bit for bit, at any number of ranks and
//          from a file, for one group size, number of threads a rank and type of machine.
// Ranks    Take turns by groups; every rank reads its images itself. The first rank gets the rows.
// Memory   Of a set in memory, on the first rank: 4 (D + C) bytes an image, which precision, recall, KID and the
//          Inception score need, and 8 (D^2 + E^2) bytes: 12 KiB an image and 63 MiB with Inception (random weights:
//          8 KiB, they know no classes). While features are
//          computed, every rank holds one group's images and one group's rows of every rank, 4 (D + E + C) bytes an
//          image. Writing a file needs no more than that.
// Order    What takes a communicator is collective.
// Errors   UserError on every rank: an image that cannot be read, a feature that is not finite, a damaged file.
// Legend   N images, B of a group, D features, E spatial features, C classes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "comm/communicator.hpp"
#include "evaluate/feature_network.hpp"
#include "evaluate/frechet.hpp"
#include "records/feature_file.hpp"

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
  Tensor logits_NC = {};                           // float32; where the network knows classes
};
// `advance` is told how many images are done with each group; may be empty. On other ranks than the first the
// result has no images.
ImageFeatures features_of(const FeatureNetwork& network, const ImageRows& images, int64_t group,
                          comm::Communicator& world, const std::function<void(int64_t)>& advance = {});
ImageFeatures features_of(const FeatureNetwork& network, const ImageRows& images, int64_t group,
                          const std::function<void(int64_t)>& advance = {});  // this process alone

// The file's facts about the images come from `info`; those about the network are filled in.
void write_features(const std::filesystem::path& path, const FeatureNetwork& network, const ImageRows& images,
                    records::FeatureFileInfo info, comm::Communicator& world,
                    const std::function<void(int64_t)>& advance = {});
ImageFeatures stored_features(const records::FeatureFile& file);
NetworkFacts network_of(const records::FeatureFile& file);

}  // namespace varscale::evaluate
