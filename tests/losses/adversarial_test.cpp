#include "losses/adversarial.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/losses/support.hpp"

namespace varscale::losses {
namespace {

constexpr AdversarialKind kKinds[] = {AdversarialKind::kHinge, AdversarialKind::kNonSaturating};

TEST(Adversarial, HingeOfKnownLogits) {
  // Two images of two logits.
  const Tensor real = at::tensor({2.0, 0.5, -1.0, 1.0}, at::kDouble).view({2, 2});
  const Tensor fake = at::tensor({-2.0, 0.0, -0.5, 1.0}, at::kDouble).view({2, 2});
  // relu(1 - real): 0 .5 2 0; relu(1 + fake): 0 1 .5 2.
  EXPECT_DOUBLE_EQ(discriminator_loss(AdversarialKind::kHinge, real, fake, 2).item<double>(), 2.5 / 4 + 3.5 / 4);
  EXPECT_DOUBLE_EQ(generator_loss(AdversarialKind::kHinge, fake, 2).item<double>(), 1.5 / 4);
}

TEST(Adversarial, NonSaturatingIsTheLogisticLoss) {
  const Tensor real = 3 * test::hash_v("real", {4, 1, 3, 3}), fake = 3 * test::hash_v("fake", {4, 1, 3, 3});
  // -log sigmoid(real) - log(1 - sigmoid(fake)); -log sigmoid(fake).
  EXPECT_NEAR(discriminator_loss(AdversarialKind::kNonSaturating, real, fake, 4).item<double>(),
              (-at::sigmoid(real).log().mean() - (1 - at::sigmoid(fake)).log().mean()).item<double>(), 1e-12);
  EXPECT_NEAR(generator_loss(AdversarialKind::kNonSaturating, fake, 4).item<double>(),
              -at::sigmoid(fake).log().mean().item<double>(), 1e-12);
}

TEST(Adversarial, GradientsAreThoseOfFiniteDifferences) {
  for (const AdversarialKind kind : kKinds) {
    const Tensor real = 3 * test::hash_v("real", {4, 6}), fake = 3 * test::hash_v("fake", {4, 6});
    EXPECT_LE(difference_error([&] { return discriminator_loss(kind, real, fake, 7); }, real, 1e-6), 1e-7);
    EXPECT_LE(difference_error([&] { return discriminator_loss(kind, real, fake, 7); }, fake, 1e-6), 1e-7);
    EXPECT_LE(difference_error([&] { return generator_loss(kind, fake, 7); }, fake, 1e-6), 1e-7);
  }
}

// Parts of unequal sizes: a mean of the parts' means would differ in the first digits.
TEST(Adversarial, PartsOfABatchAddUpToTheWhole) {
  const Tensor real = 3 * test::hash_v("real", {5, 1, 3, 3}), fake = 3 * test::hash_v("fake", {5, 1, 3, 3});
  LecamMeans means(0.9);
  means.update(LecamMeans::sums(real, fake), 5);
  auto sum_of_parts = [&](const std::function<Tensor(const Tensor&, const Tensor&)>& loss) {
    return (loss(real.slice(0, 0, 2), fake.slice(0, 0, 2)) + loss(real.slice(0, 2), fake.slice(0, 2))).item<double>();
  };
  for (const AdversarialKind kind : kKinds) {
    auto d = [&](const Tensor& r, const Tensor& f) { return discriminator_loss(kind, r, f, 5); };
    auto g = [&](const Tensor&, const Tensor& f) { return generator_loss(kind, f, 5); };
    EXPECT_NEAR(sum_of_parts(d), d(real, fake).item<double>(), 1e-14);
    EXPECT_NEAR(sum_of_parts(g), g(real, fake).item<double>(), 1e-14);
  }
  auto lecam = [&](const Tensor& r, const Tensor& f) { return means.loss(r, f, 5); };
  EXPECT_NEAR(sum_of_parts(lecam), lecam(real, fake).item<double>(), 1e-14);
  const Tensor sums = LecamMeans::sums(real.slice(0, 0, 2), fake.slice(0, 0, 2)) +
                      LecamMeans::sums(real.slice(0, 2), fake.slice(0, 2));
  EXPECT_LE(worst(sums, LecamMeans::sums(real, fake)), 1e-6);
  auto square = [](const Tensor& x) { return x.pow(3).sum({1, 2, 3}); };
  auto penalty = [&](const Tensor& r, const Tensor&) { return r1_penalty(square, r, 5); };
  EXPECT_NEAR(sum_of_parts(penalty), penalty(real, fake).item<double>(), 1e-10);
}

TEST(Adversarial, HalfLogitsAreAveragedInFloat32) {
  const Tensor logits = at::full({1, 4096}, 1.0 / 256).to(at::kBFloat16);
  EXPECT_EQ(per_image(logits).scalar_type(), at::kFloat);
  EXPECT_FLOAT_EQ(per_image(logits).item<float>(), 1.0F / 256);
}

TEST(LecamMeans, AreTheDecayedMeansOfTheSteps) {
  LecamMeans means(0.75);
  const Tensor real = at::tensor({1.0, 3.0}).view({2, 1}), fake = at::tensor({-1.0, 0.0}).view({2, 1});
  EXPECT_EQ(means.loss(real, fake, 2).item<double>(), 0);  // nothing is known yet
  means.update(LecamMeans::sums(real, fake), 2);
  EXPECT_LE(worst(means.means(), at::tensor({2.0, -0.5})), 1e-6);  // the first values as they are
  means.update(at::tensor({8.0F, 2.0F}), 2);
  // Weights .25 x .75 and .25 over their sum: 3/7 and 4/7.
  EXPECT_LE(worst(means.means(), at::tensor({(3 * 2.0 + 4 * 4) / 7, (3 * -0.5 + 4 * 1) / 7})), 1e-6);
}

TEST(LecamMeans, LossIsOneSidedAboutTheOtherMean) {
  LecamMeans means(0);
  means.update(at::tensor({2.0F, -1.0F}), 1);
  // real over -1: (0.5 + 1)^2, none for -3; 2 over fake: (2 - 1)^2, none for 4.
  const Tensor real = at::tensor({0.5, -3.0}, at::kDouble).view({2, 1});
  const Tensor fake = at::tensor({1.0, 4.0}, at::kDouble).view({2, 1});
  EXPECT_NEAR(means.loss(real, fake, 2).item<double>(), (2.25 + 1) / 2, 1e-6);
  EXPECT_LE(difference_error([&] { return means.loss(real, fake, 2); }, real, 1e-6), 1e-6);
  EXPECT_LE(difference_error([&] { return means.loss(real, fake, 2); }, fake, 1e-6), 1e-6);
}

TEST(LecamMeans, BuffersAreTheWholeState) {
  LecamMeans means(0.5), copy(0.5);
  means.update(at::tensor({2.0F, -1.0F}), 1);
  copy.buffers()[0].tensor.copy_(means.buffers()[0].tensor);
  means.update(at::tensor({1.0F, 3.0F}), 2), copy.update(at::tensor({1.0F, 3.0F}), 2);
  EXPECT_TRUE(at::equal(means.means(), copy.means()));
}

TEST(R1, IsTheSquaredSlope) {
  // logits = w . x: the gradient is w, whatever the image.
  const Tensor w = test::hash_v("w", {3, 4, 4}).set_requires_grad(true);
  const Tensor image = test_image("a", 3, 4);
  auto logits = [&](const Tensor& x) { return (x * w).sum({1, 2, 3}); };
  const Tensor penalty = r1_penalty(logits, image, 6);
  EXPECT_NEAR(penalty.item<double>(), 3 * w.square().sum().item<double>() / 6, 1e-12);
  EXPECT_LE(worst(torch::autograd::grad({penalty}, {w})[0], w), 1e-12);  // 3 x 2 w / 6
  EXPECT_FALSE(image.requires_grad());
  const at::NoGradGuard no_grad;  // it brings its own graph
  EXPECT_NEAR(r1_penalty(logits, image, 6).item<double>(), penalty.item<double>(), 1e-12);
}

TEST(AdaptiveWeight, IsTheBoundedRatio) {
  EXPECT_DOUBLE_EQ(adaptive_weight(3, 2), 3 / 2.0001);
  EXPECT_DOUBLE_EQ(adaptive_weight(3, 0), 1e4);  // 3e4 before the bound
  EXPECT_DOUBLE_EQ(adaptive_weight(0.5, 0), 5e3);
  EXPECT_DOUBLE_EQ(adaptive_weight(0, 1), 0);
  EXPECT_DOUBLE_EQ(adaptive_weight(1e-6, 1, {0.015, 10}), 0.015);
  EXPECT_DOUBLE_EQ(adaptive_weight(1e6, 1, {0.015, 10}), 10);
  EXPECT_TRUE(std::isnan(adaptive_weight(std::numeric_limits<double>::quiet_NaN(), 1)));
  EXPECT_TRUE(std::isnan(adaptive_weight(1, std::numeric_limits<double>::quiet_NaN())));
}

TEST(Ramp, RisesFromItsFirstStep) {
  EXPECT_EQ(ramp(99, 100, 4), 0);
  EXPECT_DOUBLE_EQ(ramp(100, 100, 4), 0.25);
  EXPECT_DOUBLE_EQ(ramp(102, 100, 4), 0.75);
  EXPECT_EQ(ramp(103, 100, 4), 1);
  EXPECT_EQ(ramp(1000000, 100, 4), 1);
  EXPECT_EQ(ramp(100, 100, 0), 1);
  EXPECT_EQ(ramp(99, 100, 0), 0);
}

}  // namespace
}  // namespace varscale::losses
