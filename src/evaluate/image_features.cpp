#include "evaluate/image_features.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/error.hpp"

namespace varscale::evaluate {
namespace {

// What the network gives for one group; undefined where it has no such thing.
struct GroupRows {
  Tensor features_BD, spatial_BE, logits_BC;
};

GroupRows rows_of(const FeatureNetwork& network, const Tensor& images_u8_B3HW) {
  BatchFeatures batch = network.both(images_u8_B3HW);
  GroupRows rows{std::move(batch.features_BD), std::move(batch.spatial_BE), {}};
  if (network.classes() > 0) rows.logits_BC = network.logits(rows.features_BD);
  return rows;
}

// Calls `take` on the first rank with every group, in order. `take` may throw: every rank then does.
void each_group(const FeatureNetwork& network, const ImageRows& images, int64_t group, comm::Communicator& world,
                const std::function<void(int64_t begin, const GroupRows&)>& take) {
  VARSCALE_CHECK(group >= 1, "groups of {} images", group);
  const int64_t D = network.dimension(), E = network.spatial_dimension(), C = network.classes();
  const int64_t ranks = world.size(), row = D + E + C;
  const Tensor mine_BF = at::zeros({group, row}), all_RBF = at::empty({ranks, group, row});
  for (int64_t first = 0; first < images.count; first += ranks * group) {
    comm::agree_on(world, "features of a group", [&] {
      const int64_t begin = first + world.rank() * group;
      if (begin >= images.count) return;
      const GroupRows made = rows_of(network, images.batch(begin, group));
      const Tensor to_BF = mine_BF.slice(0, 0, made.features_BD.size(0));
      to_BF.slice(1, 0, D).copy_(made.features_BD);
      if (E > 0) to_BF.slice(1, D, D + E).copy_(made.spatial_BE);
      if (C > 0) to_BF.slice(1, D + E).copy_(made.logits_BC);
    });
    world.all_gather(all_RBF, mine_BF, "features of a group").wait();
    comm::agree_on(world, "use of features", [&] {
      if (world.rank() != 0) return;
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const int64_t begin = first + rank * group, count = std::min(group, images.count - begin);
        if (count <= 0) return;
        const Tensor from_BF = all_RBF[rank].slice(0, 0, count);
        GroupRows rows{from_BF.slice(1, 0, D).contiguous(), {}, {}};
        if (E > 0) rows.spatial_BE = from_BF.slice(1, D, D + E).contiguous();
        if (C > 0) rows.logits_BC = from_BF.slice(1, D + E).contiguous();
        take(begin, rows);
      }
    });
  }
}

// Features without images.
ImageFeatures empty_features(int64_t images, int64_t features, int64_t spatial, int64_t classes) {
  ImageFeatures all{at::empty({images, features}), GaussianStatistics(features)};
  if (spatial > 0) all.spatial.emplace(spatial);
  if (classes > 0) all.logits_NC = at::empty({images, classes});
  return all;
}

const float* floats_of(const Tensor& x) { return x.defined() ? x.const_data_ptr<float>() : nullptr; }

}  // namespace

ImageFeatures features_of(const FeatureNetwork& network, const ImageRows& images, int64_t group,
                          comm::Communicator& world, const std::function<void(int64_t)>& advance) {
  ImageFeatures all = empty_features(world.rank() == 0 ? images.count : 0, network.dimension(),
                                     network.spatial_dimension(), network.classes());
  each_group(network, images, group, world, [&](int64_t begin, const GroupRows& rows) {
    const int64_t count = rows.features_BD.size(0);
    all.features_ND.slice(0, begin, begin + count).copy_(rows.features_BD);
    all.statistics.add(rows.features_BD);
    if (all.spatial) all.spatial->add(rows.spatial_BE);
    if (all.logits_NC.defined()) all.logits_NC.slice(0, begin, begin + count).copy_(rows.logits_BC);
    if (advance) advance(count);
  });
  return all;
}

ImageFeatures features_of(const FeatureNetwork& network, const ImageRows& images, int64_t group,
                          const std::function<void(int64_t)>& advance) {
  const std::unique_ptr<comm::Communicator> self = comm::make_self();
  return features_of(network, images, group, *self, advance);
}

void write_features(const std::filesystem::path& path, const FeatureNetwork& network, const ImageRows& images,
                    records::FeatureFileInfo info, comm::Communicator& world,
                    const std::function<void(int64_t)>& advance) {
  info.images = images.count;
  info.features = network.dimension();
  info.spatial = network.spatial_dimension();
  info.classes = network.classes();
  info.network = network.name();
  info.network_identity = network.identity();
  info.random_weights = network.is_random();
  std::optional<records::FeatureFileWriter> writer;
  comm::agree_on(world, "feature file", [&] {
    if (world.rank() == 0) writer.emplace(path, info);
  });
  each_group(network, images, info.group, world, [&](int64_t, const GroupRows& rows) {
    if (!rows.features_BD.isfinite().all().item<bool>())
      throw base::UserError("the network gives a feature that is not a finite number");
    const int64_t count = rows.features_BD.size(0);
    writer->append({.count = count,
                    .features = floats_of(rows.features_BD),
                    .spatial = floats_of(rows.spatial_BE),
                    .logits = floats_of(rows.logits_BC)});
    if (advance) advance(count);
  });
  comm::agree_on(world, "feature file", [&] {
    if (writer) writer->commit();
  });
}

ImageFeatures stored_features(const records::FeatureFile& file) {
  using records::FeaturePart;
  const records::FeatureFileInfo& info = file.info();
  ImageFeatures all = empty_features(info.images, info.features, info.spatial, info.classes);
  for (int64_t begin = 0; begin < info.images; begin += info.group) {
    const int64_t count = std::min(info.group, info.images - begin);
    const auto rows_at = [&](const Tensor& all_NF) { return all_NF.slice(0, begin, begin + count); };
    const Tensor features_BD = rows_at(all.features_ND);
    file.read(FeaturePart::kFeatures, begin, count, features_BD.mutable_data_ptr<float>());
    all.statistics.add(features_BD);
    if (all.spatial) {
      const Tensor spatial_BE = at::empty({count, info.spatial});
      file.read(FeaturePart::kSpatial, begin, count, spatial_BE.mutable_data_ptr<float>());
      all.spatial->add(spatial_BE);
    }
    if (all.logits_NC.defined())
      file.read(FeaturePart::kLogits, begin, count, rows_at(all.logits_NC).mutable_data_ptr<float>());
  }
  return all;
}

NetworkFacts network_of(const records::FeatureFile& file) {
  return {file.info().network, file.info().network_identity, file.info().random_weights};
}

}  // namespace varscale::evaluate
