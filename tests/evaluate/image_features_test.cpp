#include "evaluate/image_features.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.hpp"
#include "base/file.hpp"
#include "comm/thread_group.hpp"
#include "evaluate/comparison.hpp"
#include "tests/support/hash_weights.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::evaluate {
namespace {

using testing::HasSubstr;

// A network with all three outputs, whose rounding depends on which images it sees together.
class Small : public FeatureNetwork {
 public:
  explicit Small(std::string name = kFidNetwork) : name_(std::move(name)) {}
  std::string name() const override { return name_; }
  bool is_random() const override { return false; }
  std::string identity() const override { return "small"; }
  int64_t dimension() const override { return 6; }
  int64_t spatial_dimension() const override { return 4; }
  int64_t classes() const override { return 5; }
  Tensor batch(const Tensor& images) const override { return both(images).features_BD; }
  BatchFeatures both(const Tensor& images_u8_B3HW) const override {
    const Tensor x_BF = images_u8_B3HW.to(at::kFloat).flatten(1) / 255;
    const Tensor together = 1e-3 * x_BF.mean();
    return {at::mm(x_BF, weight("features", x_BF.size(1), 6)).relu() + together,
            at::mm(x_BF, weight("spatial", x_BF.size(1), 4)) + together};
  }
  Tensor logits(const Tensor& features_BD) const override { return at::mm(features_BD, weight("logits", 6, 5)); }

 private:
  static Tensor weight(const char* name, int64_t in, int64_t out) {
    return test::hash_v(name, {in, out}).to(at::kFloat);
  }
  std::string name_;
};

Tensor some_images(const char* name, int64_t count) {
  return test::hash_int_tensor(name, {count, 3, 2, 2}, 256).to(at::kByte);
}

ImageRows supply(const Tensor& images_u8_B3HW) {
  return {images_u8_B3HW.size(0), [=](int64_t begin, int64_t count) {
            return images_u8_B3HW.slice(0, begin, std::min(begin + count, images_u8_B3HW.size(0)));
          }};
}

records::FeatureFileInfo info_of(int64_t group) {
  records::FeatureFileInfo info;
  info.group = group, info.width = 2, info.height = 2;
  return info;
}

void expect_equal_bits(const ImageFeatures& a, const ImageFeatures& b, const std::string& what) {
  EXPECT_TRUE(at::equal(a.features_ND, b.features_ND)) << what;
  EXPECT_TRUE(at::equal(a.logits_NC, b.logits_NC)) << what;
  const auto same = [&](const GaussianStatistics& one, const GaussianStatistics& other) {
    EXPECT_EQ(one.count(), other.count()) << what;
    EXPECT_TRUE(at::equal(one.gaussian().mean_D, other.gaussian().mean_D)) << what;
    EXPECT_TRUE(at::equal(one.gaussian().covariance_DD, other.gaussian().covariance_DD)) << what;
  };
  same(a.statistics, b.statistics);
  same(*a.spatial, *b.spatial);
}

TEST(ImageFeatures, AreTheSameBitsAtAnyNumberOfRanksAndFromAFile) {
  const Small network;
  const Tensor images = some_images("a", 23);
  const ImageFeatures want = features_of(network, supply(images), 4);
  EXPECT_TRUE(at::equal(want.features_ND.slice(0, 20), network.batch(images.slice(0, 20))));  // the last, shorter group
  EXPECT_FALSE(at::equal(want.features_ND, features_of(network, supply(images), 5).features_ND));
  EXPECT_TRUE(at::equal(want.logits_NC.slice(0, 0, 4), network.logits(network.batch(images.slice(0, 0, 4)))));
  const base::TemporaryFolder folder;
  std::string bytes;
  for (const int ranks : {1, 2, 3, 8}) {
    const std::string what = fmt::format("{} ranks", ranks);
    comm::run_ranks(ranks, [&](comm::Communicator& world) {
      int64_t seen = 0;
      const ImageFeatures got = features_of(network, supply(images), 4, world, [&](int64_t count) { seen += count; });
      EXPECT_EQ(seen, world.rank() == 0 ? 23 : 0) << what;
      if (world.rank() == 0) expect_equal_bits(got, want, what);
      write_features(folder / "a.h5", network, supply(images), info_of(4), world);
    });
    if (bytes.empty()) bytes = base::read_file(folder / "a.h5");
    EXPECT_EQ(base::read_file(folder / "a.h5"), bytes) << what;
    EXPECT_EQ(folder.entries(), 1) << what;
  }
  const records::FeatureFile file(folder / "a.h5");
  expect_equal_bits(stored_features(file), want, "stored");
  EXPECT_EQ(network_of(file).name, kFidNetwork);
  EXPECT_EQ(network_of(file).identity, "small");
  EXPECT_FALSE(network_of(file).is_random);
}

TEST(ImageFeatures, OfThePublishedNetworkGiveItsInceptionScore) {
  const Tensor a = some_images("a", 12), b = some_images("b", 9);
  const Small network, other("another");
  const auto figures = [&](const Small& through) {
    return compare(through, features_of(through, supply(a), 4), features_of(through, supply(b), 4));
  };
  const Comparison fid = figures(network);
  ASSERT_TRUE(fid.inception_score.has_value());
  EXPECT_EQ(fid.inception_score->mean, shuffled_inception_score(features_of(network, supply(b), 4).logits_NC).mean);
  EXPECT_FALSE(figures(other).inception_score.has_value());
}

TEST(ImageFeatures, FailOnEveryRankWhereOneCannotReadAnImage) {
  const Small network;
  const Tensor images = some_images("a", 23);
  ImageRows rows = supply(images);
  rows.batch = [&, read = rows.batch](int64_t begin, int64_t count) {
    if (begin == 8) throw base::UserError("8.png: not a readable image");
    return read(begin, count);
  };
  const base::TemporaryFolder folder;
  const auto failures = comm::try_ranks(
      3, [&](comm::Communicator& world) { write_features(folder / "a.h5", network, rows, info_of(4), world); });
  for (const std::exception_ptr& failure : failures) {
    ASSERT_NE(failure, nullptr);
    EXPECT_THAT(base::message_of<base::UserError>([&] { std::rethrow_exception(failure); }),
                HasSubstr("8.png: not a readable image"));
  }
  EXPECT_EQ(folder.entries(), 0);
}

TEST(ImageFeatures, RefuseNumbersThatAreNotFinite) {
  class Broken : public Small {
    BatchFeatures both(const Tensor& images) const override {
      BatchFeatures batch = Small::both(images);
      batch.features_BD.fill_(std::numeric_limits<float>::quiet_NaN());
      return batch;
    }
  };
  const base::TemporaryFolder folder;
  const auto world = comm::make_self();
  EXPECT_THAT(base::message_of<base::UserError>(
                  [&] { write_features(folder / "a.h5", Broken(), supply(some_images("a", 9)), info_of(4), *world); }),
              HasSubstr("the network gives a feature that is not a finite number"));
  EXPECT_EQ(folder.entries(), 0);
}

}  // namespace
}  // namespace varscale::evaluate
