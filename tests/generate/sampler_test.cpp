#include "generate/sampler.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include "base/error.hpp"
#include "nn/tensor.hpp"
#include "tests/support/hash_weights.hpp"
#include "tests/support/parity.hpp"

namespace varscale::generate {
namespace {

using testing::HasSubstr;

// The model and tokenizer of the fixture: depth 2, ten classes, 30 tokens, images of 64 px.
struct Pair {
  models::Var model;
  tokenizer::Vqvae tokenizer;

  explicit Pair(bool attn_l2_norm = true, bool shared_adaln = false)
      : model(shape(attn_l2_norm, shared_adaln)), tokenizer(config()) {
    test::fill_hash_weights(model.parameters());
    test::fill_hash_weights(tokenizer.parameters());
  }
  Sampler sampler(SamplingOptions options) const { return {model, tokenizer.quantizer(), options}; }

  static scaling::VarShape shape(bool attn_l2_norm, bool shared_adaln) {
    const scaling::TokenSpace space{4096, 32, scaling::ScaleList({1, 2, 3, 4})};
    scaling::VarShape shape = scaling::VarShape::from_depth(2, space, 10, shared_adaln);
    shape.attn_l2_norm = attn_l2_norm;
    return shape;
  }
  static tokenizer::VqvaeConfig config() {
    tokenizer::VqvaeConfig config;
    config.image_side = 64;
    config.channels = 32;
    config.scales = {1, 2, 3, 4};
    return config;
  }
};

std::vector<Request> requests_of(const std::vector<int64_t>& images) {
  std::vector<Request> requests;
  for (const int64_t image : images) requests.push_back({.image = image, .label = image % 10});
  return requests;
}

TEST(Sampler, GreedyImagesEqualThePublicCode) {
  test::Parity parity("sampling_d2");
  const base::SafetensorsFile file(std::filesystem::path(std::getenv("VARSCALE_FIXTURES")) /
                                   "sampling_d2.safetensors");
  auto stored = [&](const std::string& key) { return nn::load_tensor(file, key); };
  const Tensor labels_B = stored("label");
  std::vector<Request> requests;
  for (int64_t i = 0; i < 3; ++i) requests.push_back({i, labels_B[i].item<int64_t>()});

  for (const bool variant : {false, true}) {
    const Pair pair(/*attn_l2_norm=*/!variant, /*shared_adaln=*/variant);
    for (const auto& [cfg, name] : {std::pair{0.0, "cfg0"}, {1.5, "cfg1.5"}, {3.0, "cfg3"}}) {
      std::vector<Tensor> logits, next;
      const auto keep = [&](const MapView& map) {
        logits.push_back(map.logits_GNV.slice(0, 0, 3));
        if (map.next_GNE.defined()) next.push_back(map.next_GNE.slice(0, 0, 3));
      };
      const Samples samples = pair.sampler({.cfg = cfg, .top_k = 1}).sample(requests, keep);
      const Tensor image_B3XX = decode_each(pair.tokenizer, samples.f_hat_BEHW).add(1).mul(0.5);

      const std::string prefix = fmt::format("{}{}.", variant ? "l20_saln1." : "", name);
      parity.check_equal(prefix + "tokens", samples.tokens_BL, stored(prefix + "tokens"));
      if (variant) {
        parity.check_stat(prefix + "image.stat", image_B3XX, stored(prefix + "image.stat"), 1e-5);
        continue;
      }
      parity.check_tensor(prefix + "f_hat", samples.f_hat_BEHW, stored(prefix + "f_hat"), 1e-5);
      // Images within 2e-5 in [-1, 1], here in [0, 1].
      parity.check_absolute(prefix + "image", image_B3XX, stored(prefix + "image"), 1e-5);
      if (cfg != 1.5) continue;
      for (int64_t k = 0; k < 3; ++k) {
        const Tensor next_BEhw = next.at(k).transpose(1, 2).reshape({3, 32, k + 2, k + 2});
        const std::string key = fmt::format("{}next.{}", prefix, k);
        parity.check_tensor(key, next_BEhw, stored(key), 1e-5);
      }
      parity.check_stat(prefix + "cfg_logits.stat", at::cat(logits, 1),
                        stored(prefix + "cfg_logits.stat"), 1e-5);
    }
  }
}

// The cache holds what a pass over the whole pyramid computes.
TEST(Sampler, CachedLogitsAreTheTeacherForcedOnesOnTheSampledTokens) {
  for (const bool shared_adaln : {false, true}) {
    const Pair pair(true, shared_adaln);
    std::vector<Tensor> logits;
    const auto keep = [&](const MapView& map) { logits.push_back(map.logits_GNV); };
    const std::vector<Request> requests = requests_of({0, 1, 2, 3});
    const Samples samples = pair.sampler({.cfg = 0, .seed = 5, .group = 4}).sample(requests, keep);

    const at::NoGradGuard no_grad;
    const Tensor labels_B = at::tensor({0, 1, 2, 3}, at::kLong);
    const Tensor want_BLV =
        pair.model.forward(labels_B, pair.tokenizer.quantizer().teacher_input(samples.tokens_BL));
    const Tensor got_BLV = at::cat(logits, 1);
    ASSERT_EQ(got_BLV.sizes(), want_BLV.sizes());
    // Products and attention over other shapes: float32 roundings, 5e-7 in the public code.
    EXPECT_LE((got_BLV - want_BLV).abs().max().item<float>(),
              5e-6 * want_BLV.abs().max().item<float>());
  }
}

// Guidance by (1 + t) cond - t uncond of two separate teacher-forced passes.
TEST(Sampler, GuidedLogitsComeFromBothHalves) {
  const Pair pair;
  std::vector<Tensor> logits;
  const auto keep = [&](const MapView& map) { logits.push_back(map.logits_GNV); };
  const Samples samples =
      pair.sampler({.cfg = 2, .seed = 6, .group = 2}).sample(requests_of({0, 1}), keep);

  const at::NoGradGuard no_grad;
  const Tensor teacher = pair.tokenizer.quantizer().teacher_input(samples.tokens_BL);
  const Tensor cond = pair.model.forward(at::tensor({0, 1}, at::kLong), teacher);
  const Tensor uncond = pair.model.forward(at::tensor({10, 10}, at::kLong), teacher);
  const scaling::ScaleList& scales = pair.model.shape().tokens.scales;
  for (int64_t k = 0; k < 4; ++k) {
    const double t = 2.0 * static_cast<double>(k) / 3.0;
    const Tensor want = ((1 + t) * cond - t * uncond).slice(1, scales.begin(k), scales.end(k));
    EXPECT_LE((logits[k] - want).abs().max().item<float>(), 1e-5 * want.abs().max().item<float>())
        << k;
  }
}

TEST(Sampler, ImagesDoNotDependOnWhatElseIsAskedFor) {
  const Pair pair;
  const Sampler sampler = pair.sampler({.cfg = 1.5, .top_k = 900, .top_p = 0.96, .seed = 11});
  const std::vector<int64_t> all = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  const Samples whole = sampler.sample(requests_of(all));
  const Tensor whole_B3XX = decode_each(pair.tokenizer, whole.f_hat_BEHW);
  for (const std::vector<int64_t>& part : {std::vector<int64_t>{6},
                                           {0},
                                           {10, 3, 9, 0, 5},
                                           {9, 8, 7, 6, 5},
                                           {10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}}) {
    const Samples some = sampler.sample(requests_of(part));
    const Tensor some_B3XX = decode_each(pair.tokenizer, some.f_hat_BEHW);
    for (size_t i = 0; i < part.size(); ++i) {
      const int64_t slot = static_cast<int64_t>(i);
      EXPECT_TRUE(at::equal(some.tokens_BL[slot], whole.tokens_BL[part[i]])) << part[i];
      EXPECT_TRUE(at::equal(some.f_hat_BEHW[slot], whole.f_hat_BEHW[part[i]])) << part[i];
      EXPECT_TRUE(at::equal(some_B3XX[slot], whole_B3XX[part[i]])) << part[i];
    }
  }
}

TEST(Sampler, DiffersBySeedAndByImage) {
  const Pair pair;
  const std::vector<Request> same_class = {{0, 4}, {1, 4}};
  const Tensor first = pair.sampler({.cfg = 0, .seed = 1}).sample(same_class).tokens_BL;
  const Tensor second = pair.sampler({.cfg = 0, .seed = 2}).sample(same_class).tokens_BL;
  EXPECT_FALSE(at::equal(first[0], first[1]));
  EXPECT_FALSE(at::equal(first[0], second[0]));
}

TEST(Sampler, FHatIsWhatTheTokensSay) {
  const Pair pair;
  const Samples samples = pair.sampler({.seed = 8}).sample(requests_of({2, 12}));
  EXPECT_GE(samples.tokens_BL.min().item<int64_t>(), 0);
  EXPECT_LT(samples.tokens_BL.max().item<int64_t>(), 4096);
  const at::NoGradGuard no_grad;
  const Tensor want = pair.tokenizer.quantizer().cumulative(samples.tokens_BL).back();
  // The same sums at another batch size.
  EXPECT_LE((samples.f_hat_BEHW - want).abs().max().item<float>(),
            1e-6 * want.abs().max().item<float>());
}

TEST(Sampler, ColdTemperatureIsTheGreedyChoice) {
  const Pair pair;
  const std::vector<Request> requests = {{0, 3}, {1, 7}, {2, 0}};
  const Tensor greedy = pair.sampler({.top_k = 1}).sample(requests).tokens_BL;
  // The fixture says that the two largest guided logits of these labels are at least 3e-3 apart;
  // divided by 1e-6, the second has no probability left in float64.
  EXPECT_TRUE(at::equal(pair.sampler({.temperature = 1e-6}).sample(requests).tokens_BL, greedy));
  EXPECT_FALSE(at::equal(pair.sampler({.temperature = 1}).sample(requests).tokens_BL, greedy));
}

TEST(Sampler, TemperatureActsAsDividedHeadWeightsDo) {
  Pair pair, divided;
  {
    const at::NoGradGuard no_grad;
    for (const nn::NamedTensor& named : divided.model.parameters()) {
      if (named.name == "head.weight" || named.name == "head.bias")
        named.tensor.mul_(0.5);  // exact
    }
  }
  const std::vector<Request> requests = requests_of({0, 1, 2});
  EXPECT_TRUE(at::equal(pair.sampler({.temperature = 2}).sample(requests).tokens_BL,
                        divided.sampler({.temperature = 1}).sample(requests).tokens_BL));
}

TEST(Sampler, RunsInBfloat16) {
  const Pair pair;
  std::vector<Tensor> logits;
  const auto keep = [&](const MapView& map) { logits.push_back(map.logits_GNV); };
  const std::vector<Request> requests = requests_of({0, 1});
  const auto first_map = [&](at::ScalarType compute) {
    logits.clear();
    pair.sampler({.cfg = 0, .group = 2, .compute = compute}).sample(requests, keep);
    return logits.front();
  };
  const Tensor want = first_map(at::kFloat), got = first_map(at::kBFloat16);
  EXPECT_EQ(got.scalar_type(), at::kFloat);
  // bfloat16 keeps 8 bits; a few roundings in a row.
  EXPECT_LE((got - want).abs().max().item<float>(), 0.05 * want.abs().max().item<float>());
  EXPECT_FALSE(at::equal(got, want));
}

TEST(Packed, FillsGroupsAsFarAsSlotsAllow) {
  using Groups = std::vector<std::vector<int64_t>>;
  EXPECT_EQ(packed({}, 4), Groups{});
  EXPECT_EQ(packed({40, 9, 2, 7}, 4), (Groups{{0, 1, 2, 3}}));               // slots 0, 1, 2, 3
  EXPECT_EQ(packed({12, 5, 8, 4}, 4), (Groups{{3, 1}, {2}, {0}}));           // slots 0, 1, 0, 0
  EXPECT_EQ(packed({3, 1, 2}, 1), (Groups{{1}, {2}, {0}}));
}

TEST(Sampler, TellsHowManyRequestsEachGroupHeld) {
  const Pair pair;
  std::vector<int64_t> counts;
  pair.sampler({.group = 4}).sample(requests_of({9, 1, 2, 8}), {}, [&](int64_t n) {
    counts.push_back(n);
  });
  EXPECT_EQ(counts, (std::vector<int64_t>{3, 1}));  // 9 has the slot of 1
}

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const base::UserError& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(Sampler, RefusesOptionsOutOfRange) {
  const Pair pair;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  auto said = [&](SamplingOptions options) { return refusal([&] { pair.sampler(options); }); };
  EXPECT_EQ(said({.cfg = -1}), "cfg is -1, expected at least 0");
  EXPECT_THAT(said({.cfg = nan}), HasSubstr("cfg is nan"));
  EXPECT_EQ(said({.top_k = 4097}),
            "top-k is 4097, expected 0 (off) to 4096, the size of the vocabulary");
  EXPECT_THAT(said({.top_k = -1}), HasSubstr("top-k is -1"));
  EXPECT_EQ(said({.top_p = 1.5}), "top-p is 1.5, expected 0 (off) to 1");
  EXPECT_THAT(said({.top_p = nan}), HasSubstr("top-p is nan"));
  EXPECT_EQ(said({.temperature = 0}), "temperature is 0, expected more than 0");
  EXPECT_THAT(said({.group = 0}), HasSubstr("group is 0"));
  EXPECT_THAT(said({.compute = at::kDouble}), HasSubstr("not in Double"));
}

TEST(Sampler, RefusesImpossibleRequests) {
  const Pair pair;
  const Sampler sampler = pair.sampler({});
  auto said = [&](const std::vector<Request>& requests) {
    return refusal([&] { sampler.sample(requests); });
  };
  EXPECT_EQ(said({{0, 11}}), "label 11 is not a class: expected 0 to 10 (10 is the null class)");
  EXPECT_THAT(said({{0, -1}}), HasSubstr("label -1"));
  EXPECT_EQ(said({{3, 0}, {3, 1}}), "image 3 is asked for twice");
  EXPECT_THAT(said({{-2, 0}}), HasSubstr("image index -2 is negative"));
}

TEST(Sampler, RefusesAQuantiserOfOtherTokens) {
  const Pair pair;
  tokenizer::QuantizerConfig other = pair.tokenizer.quantizer().config();
  other.scales = scaling::ScaleList({1, 2, 3, 5});
  const tokenizer::Quantizer quantizer(other);
  EXPECT_THAT(refusal([&] { Sampler(pair.model, quantizer, {}); }),
              HasSubstr("the quantiser 4096 of width 32 at scales 1,2,3,5"));
}

}  // namespace
}  // namespace varscale::generate
