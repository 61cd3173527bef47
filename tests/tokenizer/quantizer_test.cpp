#include "tokenizer/quantizer.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "tests/support/hash_weights.hpp"
#include "tests/support/parity.hpp"

namespace varscale::tokenizer {
namespace {

std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(std::getenv("VARSCALE_FIXTURES")) / name;
}

Quantizer hash_quantizer(std::vector<int64_t> sides, bool unit_norm = false) {
  QuantizerConfig config;
  config.scales = scaling::ScaleList(std::move(sides));
  config.unit_norm = unit_norm;
  Quantizer quantizer(config);
  test::fill_hash_weights(quantizer.parameters());
  return quantizer;
}

TEST(PhiOfScale, EqualsThePublicTable) {
  EXPECT_EQ(phi_of_scale(10, 4), (std::vector<int64_t>{0, 0, 1, 1, 1, 2, 2, 3, 3, 3}));
  EXPECT_EQ(phi_of_scale(14, 4), (std::vector<int64_t>{0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3}));
  const auto table = nlohmann::json::parse(std::ifstream(fixture("schedule.json")));
  int checked = 0;
  for (const auto& [phis, entry] : table.at("phi_partially_shared").items()) {
    for (const auto& [key, choice] : entry.at("index").items()) {
      const auto want = choice.get<std::vector<int64_t>>();
      EXPECT_EQ(phi_of_scale(static_cast<int64_t>(want.size()), std::stoll(phis)), want)
          << phis << " " << key;
      ++checked;
    }
  }
  EXPECT_GE(checked, 15);
}

TEST(Quantizer, TokensFHatAndTeacherInputEqualThePublicCodeAt64) {
  test::Parity parity("vqvae_64.quantizer");
  const base::SafetensorsFile file(fixture("vqvae_64.safetensors"));
  const Tensor f_BCHW = nn::load_tensor(file, "f");
  for (const bool unit_norm : {false, true}) {
    const Quantizer quantizer = hash_quantizer({1, 2, 3, 4}, unit_norm);
    const std::string prefix = unit_norm ? "znorm." : "";
    const std::vector<Tensor> tokens = quantizer.encode(f_BCHW);
    ASSERT_EQ(tokens.size(), 4u);
    for (int k = 0; k < 4; ++k) {
      const std::string key = fmt::format("{}idx.{}", prefix, k);
      parity.check_equal(key, tokens[k], nn::load_tensor(file, key));
    }
    const std::vector<Tensor> f_hat = quantizer.cumulative(at::cat(tokens, 1));
    parity.check_tensor(prefix + "f_hat.3", f_hat[3], nn::load_tensor(file, prefix + "f_hat.3"),
                        1e-5);
    if (unit_norm) continue;
    for (int k = 0; k < 3; ++k) {
      const std::string key = fmt::format("f_hat.{}", k);
      parity.check_tensor(key, f_hat[k], nn::load_tensor(file, key), 1e-5);
    }
    parity.check_tensor("var_input", quantizer.teacher_input(at::cat(tokens, 1)),
                        nn::load_tensor(file, "var_input"), 1e-5);
  }
}

TEST(Quantizer, TokensAndTeacherInputEqualThePublicCodeAt256) {
  test::Parity parity("vqvae_256.quantizer");
  const base::SafetensorsFile file(fixture("vqvae_256.safetensors"));
  const Quantizer quantizer = hash_quantizer({1, 2, 3, 4, 5, 6, 8, 10, 13, 16});
  const std::vector<Tensor> tokens = quantizer.encode(nn::load_tensor(file, "f"));
  for (int k = 0; k < 10; ++k) {
    const std::string key = fmt::format("idx.{}", k);
    parity.check_equal(key, tokens[k], nn::load_tensor(file, key));
  }
  parity.check_tensor("var_input", quantizer.teacher_input(at::cat(tokens, 1)),
                      nn::load_tensor(file, "var_input"), 1e-5);
}

// Training feeds teacher_input(), sampling feeds next_input() scale by scale: the same numbers.
TEST(Quantizer, TeacherInputIsWhatSamplingFeedsStepByStep) {
  for (const std::vector<int64_t>& sides :
       {std::vector<int64_t>{1, 2, 4, 8}, std::vector<int64_t>{2, 3, 5, 6, 9}}) {
    const Quantizer quantizer = hash_quantizer(sides);
    const scaling::ScaleList& scales = quantizer.config().scales;
    const Tensor tokens_BL = test::hash_int_tensor("tokens", {3, scales.tokens()}, 4096);
    const std::vector<Tensor> f_hat = quantizer.cumulative(tokens_BL);
    std::vector<Tensor> steps;
    for (int64_t k = 1; k < scales.count(); ++k)
      steps.push_back(quantizer.next_input(k, f_hat[k - 1]));
    const Tensor want = at::cat(steps, 1), got = quantizer.teacher_input(tokens_BL);
    ASSERT_EQ(got.sizes(), want.sizes());
    // Sums of about 10 x 9 x 32 terms in another order: a few float32 roundings.
    EXPECT_LT((got - want).abs().max().item<float>(), 3e-6 * want.abs().max().item<float>());
  }
}

TEST(Quantizer, SurvivesTheTripThroughATokenFilesWeights) {
  const Quantizer quantizer = hash_quantizer({1, 2, 4, 8});
  const Quantizer back = Quantizer::from_weights(quantizer.weights(), quantizer.config().scales);
  ASSERT_EQ(back.parameters().size(), quantizer.parameters().size());
  for (size_t i = 0; i < back.parameters().size(); ++i) {
    EXPECT_EQ(back.parameters()[i].name, quantizer.parameters()[i].name);
    EXPECT_TRUE(at::equal(back.parameters()[i].tensor, quantizer.parameters()[i].tensor));
  }
}

TEST(Quantizer, EncodingACumulativeMapOfOneScaleGivesItsTokensBack) {
  QuantizerConfig config;
  config.vocabulary = 64, config.code_width = 8, config.phis = 1, config.phi_ratio = 0;
  config.scales = scaling::ScaleList({4});
  Quantizer quantizer(config);
  test::fill_hash_weights(quantizer.parameters());
  const Tensor tokens_BL = test::hash_int_tensor("tokens", {5, 16}, 64);
  EXPECT_TRUE(at::equal(quantizer.encode(quantizer.cumulative(tokens_BL)[0])[0], tokens_BL));
}

TEST(Quantizer, RefusesImpossibleSettings) {
  QuantizerConfig config;
  EXPECT_THROW(Quantizer{config}, base::UserError);  // no scales
  config.scales = scaling::ScaleList({1, 2});
  EXPECT_THROW(Quantizer{config}, base::UserError);  // more phis than scales
  config.phis = 2;
  EXPECT_NO_THROW(Quantizer{config});
  config.vocabulary = 1;
  EXPECT_THROW(Quantizer{config}, base::UserError);
}

}  // namespace
}  // namespace varscale::tokenizer
