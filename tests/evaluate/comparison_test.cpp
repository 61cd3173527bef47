#include "evaluate/comparison.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.hpp"
#include "evaluate/inception.hpp"
#include "tests/support/hash_weights.hpp"
#include "tests/support/python.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::evaluate {
namespace {

using testing::HasSubstr;

// Mean and deviation of each channel: six features of an image.
class ChannelMoments : public FeatureNetwork {
 public:
  explicit ChannelMoments(std::string name) : name_(std::move(name)) {}
  std::string name() const override { return name_; }
  bool is_random() const override { return false; }
  std::string identity() const override { return "none"; }
  int64_t dimension() const override { return 6; }
  Tensor batch(const Tensor& images_u8_B3HW) const override {
    const Tensor x = images_u8_B3HW.to(at::kFloat).flatten(2) / 255;
    return at::cat({x.mean(2), x.std(2, /*unbiased=*/false)}, 1);
  }

 private:
  std::string name_;
};

Tensor images_named(const char* name, int64_t count, int64_t above) {
  return (test::hash_int_tensor(name, {count, 3, 4, 4}, 256 - above) + above).to(at::kByte);
}

ImageRows rows_of(const Tensor& images_u8_B3HW) {
  return {images_u8_B3HW.size(0), [=](int64_t begin, int64_t count) {
            return images_u8_B3HW.slice(0, begin, std::min(begin + count, images_u8_B3HW.size(0)));
          }};
}

TEST(Comparison, OfASetInBatchesIsThatOfItsFeatures) {
  const ChannelMoments network("moments");
  const Tensor a = images_named("a", 40, 0), b = images_named("b", 30, 60);
  int64_t seen = 0;
  const ImageFeatures reference = features_of(network, rows_of(a), 7, [&](int64_t count) { seen += count; });
  const ImageFeatures samples = features_of(network, rows_of(b), 30);
  EXPECT_EQ(seen, 40);
  EXPECT_TRUE(at::equal(reference.features_ND, network.batch(a)));

  const Comparison result = compare(network, reference, samples);
  EXPECT_EQ(result.frechet_name, "FD-moments");
  GaussianStatistics whole(6);
  whole.add(network.batch(a));
  EXPECT_NEAR(result.frechet, frechet_distance(whole.gaussian(), samples.statistics.gaussian()), 1e-12);
  EXPECT_GT(result.frechet, 0.01);
  EXPECT_EQ(result.kernel_options.subset_size, 30);  // the smaller set whole, the larger one in parts
  EXPECT_EQ(result.kernel_options.subsets, 100);
  EXPECT_GT(result.kernel->mean, 0);
  const PrecisionRecall pr = precision_recall(network.batch(a), network.batch(b));
  EXPECT_EQ(result.neighbourhoods->precision, pr.precision);
  EXPECT_EQ(result.neighbourhoods->recall, pr.recall);

  const auto json = result.json();
  EXPECT_EQ(json.at("frechet").at("name"), "FD-moments");
  EXPECT_EQ(json.at("reference_images"), 40);
  EXPECT_EQ(json.at("sample_images"), 30);
  EXPECT_EQ(json.at("kid").at("subset_size"), 30);
  EXPECT_FALSE(json.contains("inception_score"));
  EXPECT_THAT(result.words(), HasSubstr("FD-moments depends on the numbers of images: compare it only at 40 reference "
                                        "images and 30 samples"));
}

TEST(Comparison, OfASetWithItselfIsPerfect) {
  const ChannelMoments network(kFidNetwork);
  const ImageFeatures set = features_of(network, rows_of(images_named("a", 25, 0)), 8);
  const Comparison result = compare(network, set, set);
  EXPECT_EQ(result.frechet_name, "FID");
  EXPECT_NEAR(result.frechet, 0, 1e-12);
  EXPECT_EQ(result.neighbourhoods->precision, 1);
  EXPECT_EQ(result.neighbourhoods->recall, 1);
  EXPECT_EQ(result.kernel_options.subsets, 1);  // all subsets of 25 would be the same
  EXPECT_LT(result.kernel->mean, 0);             // equal points across count, equal points inside do not
  EXPECT_THAT(result.words(), HasSubstr("(all images of both sets)"));
}

TEST(Comparison, WithGivenStatisticsTakesTheDistanceFromThem) {
  const ChannelMoments network("moments");
  const ImageFeatures reference = features_of(network, rows_of(images_named("a", 40, 0)), 7);
  const ImageFeatures samples = features_of(network, rows_of(images_named("b", 30, 60)), 30);
  const Gaussian given{at::full({6}, 0.25, at::kDouble), at::eye(6, at::kDouble), 0};
  const Comparison images = compare(network, reference, samples);
  const Comparison both = compare(network, given, &reference, samples), alone = compare(network, given, nullptr, samples);
  for (const Comparison* result : {&both, &alone}) {
    EXPECT_EQ(result->frechet, frechet_distance(given, samples.statistics.gaussian()));
    EXPECT_EQ(result->json().at("frechet").at("by_statistics"), true);
    EXPECT_THAT(result->words(), HasSubstr("FD-moments is to the file's statistics, which must be of this network, and "
                                           "depends on the number of images: compare it only at 30 samples"));
  }
  EXPECT_EQ(both.kernel->mean, images.kernel->mean);
  EXPECT_EQ(both.neighbourhoods->precision, images.neighbourhoods->precision);
  EXPECT_EQ(both.json().at("kid"), images.json().at("kid"));
  EXPECT_EQ(both.reference_images, 40);
  EXPECT_EQ(alone.reference_images, 0);
  for (const char* absent : {"kid", "precision", "recall", "k"}) EXPECT_FALSE(alone.json().contains(absent)) << absent;
  EXPECT_THAT(alone.words(), HasSubstr("no KID, precision and recall: the reference has statistics alone"));
  EXPECT_THAT(both.words(), testing::Not(HasSubstr("no KID")));
}

// sFID by its definition, from the layer that ADM's evaluator reads: here as [N, 7, 17, 17], there flattened as NHWC.
constexpr const char* kSpatialDistance = R"(
import sys
import numpy
from safetensors.numpy import load_file

def features(x):
    return x.transpose(0, 2, 3, 1).reshape(len(x), -1).astype(numpy.float64)

file = load_file(sys.argv[1])
a, b = features(file["a"]), features(file["b"])
assert a.shape[1] == 2023
root = lambda x: (x - x.mean(0)) / numpy.sqrt(len(x) - 1)
# Tr (S1 S2)^(1/2) is the sum of the singular values of A B^T, both centred: exact where covariances lack rank.
cross = numpy.linalg.svd(root(a) @ root(b).T, compute_uv=False).sum()
print(((a.mean(0) - b.mean(0)) ** 2).sum() + (root(a) ** 2).sum() + (root(b) ** 2).sum() - 2 * cross)
)";

TEST(Comparison, SpatialDistanceIsThatOfSevenChannelsOfMixed6d) {
  const Inception network = Inception::random(0);
  const Tensor a = images_named("a", 6, 0), b = images_named("b", 5, 60);
  const ImageFeatures reference = features_of(network, rows_of(a), 4), samples = features_of(network, rows_of(b), 5);
  const auto layer = [&](const Tensor& images) {
    Tensor seven_B7YX;  // branch1x1 comes first in the block's output
    network.run(images, [&](std::string_view block, const Tensor& output) {
      if (block == "Mixed_6d") seven_B7YX = output.slice(1, 0, 7).contiguous();
    });
    return seven_B7YX;
  };
  const base::TemporaryFolder folder;
  nn::save_tensors(folder / "layers.safetensors", {{"a", layer(a)}, {"b", layer(b)}});
  const double want = std::stod(test::run_python(kSpatialDistance, folder / "layers.safetensors"));

  const Comparison result = compare(network, reference, samples);
  ASSERT_TRUE(result.spatial.has_value());
  // Float32 features of other batches: 1e-6 of them.
  EXPECT_NEAR(*result.spatial, want, 1e-5 * want);
  EXPECT_GT(std::abs(*result.spatial - result.frechet), 1e-2 * want);
  EXPECT_EQ(result.json().at("spatial_frechet").at("name"), "sFD-random");
  EXPECT_THAT(result.words(), HasSubstr(fmt::format("sFD-random {:.6g}\n", *result.spatial)));
  EXPECT_EQ(spatial_name(ChannelMoments(kFidNetwork)), "sFID");
}

TEST(Comparison, OfANetworkWithoutSpatialFeaturesHasNoSpatialDistance) {
  const ChannelMoments network("moments");
  const ImageFeatures set = features_of(network, rows_of(images_named("a", 9, 0)), 8);
  const Comparison result = compare(network, set, set);
  EXPECT_FALSE(result.spatial.has_value());
  EXPECT_FALSE(result.json().contains("spatial_frechet"));
  EXPECT_EQ(result.words().find("sFD"), std::string::npos);
}

TEST(Comparison, RefusesSetsOfThreeImages) {
  const ChannelMoments network("moments");
  const ImageFeatures set = features_of(network, rows_of(images_named("a", 9, 0)), 8);
  const ImageFeatures three = features_of(network, rows_of(images_named("b", 3, 0)), 8);
  EXPECT_EQ(base::message_of<base::UserError>([&] { compare(network, set, three); }),
            "a comparison needs at least 4 images in each set, one has 3");
}

TEST(ShuffledInceptionScore, DoesNotDependOnTheOrderOfClasses) {
  // 12,000 images of 20 classes, sorted: consecutive parts of 5000 would hold 9 or fewer classes each.
  const Tensor logits_NC = 60 * at::eye(20).repeat_interleave(600, 0);
  const InceptionScore score = shuffled_inception_score(logits_NC);
  EXPECT_EQ(score.parts.size(), 3u);
  EXPECT_NEAR(score.mean, 20, 0.1);
  EXPECT_LT(inception_score(at::softmax(logits_NC, 1)).mean, 10);
}

}  // namespace
}  // namespace varscale::evaluate
