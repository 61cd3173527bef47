#include "models/var/model.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "optim/adamw.hpp"
#include "scaling/count.hpp"
#include "tests/models/var_fixture.hpp"

namespace varscale::models {
namespace {

double relative_max(const Tensor& got, const Tensor& want) {
  return ((got - want).abs().max() / want.abs().max()).item<double>();
}

nlohmann::json json_fixture(const std::string& name) {
  return nlohmann::json::parse(std::ifstream(fixture(name)));
}

// --- names and order
// ----------------------------------------------------------------------------------

TEST(VarParameters, HaveThePublicNamesShapesAndOrder) {
  const auto stored = json_fixture("names.json");
  for (const std::string name : {"var_d16_256", "var_d30_256", "var_d36_512_saln"}) {
    const auto& entry = stored.at(name);
    const scaling::TokenSpace tokens{
        4096, 32, scaling::ScaleList(entry.at("patch_nums").get<std::vector<int64_t>>())};
    const auto shape =
        scaling::VarShape::from_depth(entry.at("depth"), tokens, 1000, entry.at("shared_aln"));
    const Var model(shape, {.device = at::kMeta});  // no memory behind it
    size_t i = 0;
    for (const auto& row : entry.at("state_dict")) {
      if (row[1] != "p") continue;
      ASSERT_LT(i, model.parameters().size());
      EXPECT_EQ(model.parameters()[i].name, row[0].get<std::string>());
      EXPECT_EQ(model.parameters()[i].tensor.sizes().vec(), row[3].get<std::vector<int64_t>>())
          << row[0];
      ++i;
    }
    EXPECT_EQ(i, model.parameters().size());
    EXPECT_EQ(nn::count_elements(model.parameters()), entry.at("num_parameters").get<int64_t>());
    EXPECT_EQ(scaling::count_parameters(shape).total(), entry.at("num_parameters").get<int64_t>());
  }
}

TEST(VarParameters, AreDividedIntoThePublicDecayGroups) {
  const auto stored = json_fixture("schedule.json").at("filter_params");
  for (const bool shared : {false, true}) {
    const auto& entry = stored.at(shared ? "d2_saln1" : "d2_saln0");
    const Var model(test_shape(2, {1, 2, 3, 4}, 10, true, shared));
    std::vector<std::string> all, decayed, spared;
    for (const nn::NamedTensor& parameter : model.parameters()) {
      all.push_back(parameter.name);
      (optim::is_decayed(parameter) ? decayed : spared).push_back(parameter.name);
    }
    EXPECT_EQ(all, entry.at("all_names_in_order").get<std::vector<std::string>>());
    for (const auto& group : entry.at("groups")) {
      EXPECT_EQ(group.at("wd_sc").get<double>() == 0 ? spared : decayed,
                group.at("params").get<std::vector<std::string>>());
    }
  }
}

// --- the forward pass
// ---------------------------------------------------------------------------------

// Sampling runs map by map on cached keys and values. The same products in other shapes: float32
// rounding.
TEST(VarCache, MapByMapEqualsTeacherForcing) {
  const at::NoGradGuard no_grad;
  for (const auto& sides : {std::vector<int64_t>{1, 2, 3, 4}, std::vector<int64_t>{2, 3, 5, 7}}) {
    for (const bool l2_norm : {true, false}) {
      for (const bool shared : {false, true}) {
        const Var model = hash_model(test_shape(2, sides, 10, l2_norm, shared));
        const scaling::ScaleList& scales = model.shape().tokens.scales;
        const Tensor labels_B = at::tensor({3, 10, 7}, at::kLong);
        const Tensor teacher_BLE =
            hash_teacher(scales, test::hash_int_tensor("t", {3, scales.tokens()}, 4096));
        const Var::Condition condition = model.condition(labels_B);
        KvCache cache = model.make_cache(3, at::kFloat);
        const int64_t first = scales.end(0);
        std::vector<Tensor> logits;
        for (int64_t k = 0; k < scales.count(); ++k) {
          Tensor x_BLC = k == 0 ? model.embed(condition, {})
                                : model.embed_map(k, teacher_BLE.slice(1, scales.begin(k) - first,
                                                                       scales.end(k) - first));
          for (int64_t i = 0; i < model.shape().depth; ++i) {
            x_BLC = model.block_cached(i, x_BLC, condition, cache, at::kFloat);
          }
          logits.push_back(model.head(x_BLC, condition, at::kFloat));
        }
        EXPECT_EQ(cache.tokens, scales.tokens());
        EXPECT_LE(relative_max(at::cat(logits, 1), model.forward(labels_B, teacher_BLE)), 1e-5)
            << scales.words() << l2_norm << shared;
      }
    }
  }
}

TEST(VarForward, ATokenSeesItsOwnAndEarlierMapsOnly) {
  const at::NoGradGuard no_grad;
  const Var model = hash_model(test_shape(2, {1, 2, 3, 4}, 10));
  const Tensor labels_B = at::tensor({3}, at::kLong);
  const Tensor teacher_BLE = test::hash_v("teacher", {1, 29, 32}).to(at::kFloat);
  const Tensor before = model.forward(labels_B, teacher_BLE);
  for (const auto& [changed, first_row] :
       {std::pair<int64_t, int64_t>{0, 1}, {4, 5}, {12, 5}, {13, 14}, {28, 14}}) {
    Tensor other = teacher_BLE.clone();
    other[0][changed] += 1;
    const Tensor difference_L = (model.forward(labels_B, other) - before).abs().amax(-1)[0];
    EXPECT_EQ(difference_L.slice(0, 0, first_row).max().item<float>(), 0) << changed;
    EXPECT_GT(difference_L.slice(0, first_row).min().item<float>(), 0) << changed;
  }
}

TEST(VarForward, ASampleDoesNotSeeTheOthers) {
  const at::NoGradGuard no_grad;
  const Var model = hash_model(test_shape(2, {1, 2, 3, 4}, 10));
  const Tensor labels_B = at::tensor({3, 10, 7}, at::kLong);
  const Tensor teacher_BLE = test::hash_v("teacher", {3, 29, 32}).to(at::kFloat);
  const Tensor whole = model.forward(labels_B, teacher_BLE);
  const Tensor alone = model.forward(labels_B.slice(0, 1, 2), teacher_BLE.slice(0, 1, 2));
  EXPECT_LE(relative_max(alone, whole.slice(0, 1, 2)),
            2e-6);  // other matrix shapes round otherwise
}

// bf16 keeps 8 bits (4e-3 a rounding). Weights, inputs and outputs of about ten products in a row
// are rounded; random errors add up to half a per cent of the logits.
TEST(VarForward, InBfloat16IsCloseToFloat32) {
  const at::NoGradGuard no_grad;
  const std::vector<int64_t> sides{1, 2, 3, 4};
  for (const bool l2_norm : {true, false}) {
    const Var model = hash_model(test_shape(2, sides, 10, l2_norm));
    const Tensor labels_B = at::tensor({3, 10, 7}, at::kLong);
    const Tensor tokens_BL = test::hash_int_tensor("input.tokens.d2", {3, 30}, 4096);
    const Tensor teacher_BLE = hash_teacher(scaling::ScaleList(sides), tokens_BL);
    const Tensor exact = model.forward(labels_B, teacher_BLE);
    const Tensor half = model.forward(labels_B, teacher_BLE, {.compute = at::kBFloat16});
    EXPECT_EQ(half.scalar_type(), at::kBFloat16);
    const double error = ((half.to(at::kFloat) - exact).norm() / exact.norm()).item<double>();
    std::printf("bf16 logits, l2 norm %d: relative L2 %.1e\n", int{l2_norm}, error);
    EXPECT_LE(error, 2e-2);
    EXPECT_GE(error, 1e-3);  // it was bf16
    const double loss = figures_of(exact, tokens_BL, model.shape().tokens.scales).loss;
    EXPECT_NEAR(figures_of(half, tokens_BL, model.shape().tokens.scales).loss, loss, 0.005 * loss);
  }
}

TEST(VarForward, GradientsInBfloat16ArriveInFloat32AndPointTheSameWay) {
  const Var model = hash_model(test_shape(2, {1, 2, 3, 4}, 10));
  const Tensor labels_B = at::tensor({3, 10, 7}, at::kLong);
  const Tensor tokens_BL = test::hash_int_tensor("input.tokens.d2", {3, 30}, 4096);
  const Tensor teacher_BLE = hash_teacher(model.shape().tokens.scales, tokens_BL);
  std::vector<std::vector<Tensor>> grads;
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const Tensor logits_BLV = model.forward(labels_B, teacher_BLE, {.compute = type});
    grads.push_back(torch::autograd::grad(
        {nn::score_tokens(logits_BLV.flatten(0, 1), tokens_BL.flatten()).loss_N.mean()},
        tensors_of(model)));
  }
  for (size_t i = 0; i < grads[0].size(); ++i) {
    EXPECT_EQ(grads[1][i].scalar_type(), at::kFloat) << model.parameters()[i].name;
    const double cosine =
        at::cosine_similarity(grads[0][i].flatten(), grads[1][i].flatten(), 0).item<double>();
    EXPECT_GE(cosine, 0.98) << model.parameters()[i].name;
  }
}

// --- drop path and label drop
// -------------------------------------------------------------------------

scaling::VarShape dropping_shape() {
  scaling::VarShape shape = test_shape(4, {1, 2}, 10);
  shape.drop_path = 0.3;
  return shape;
}

std::vector<int64_t> first_samples(int64_t count) {
  std::vector<int64_t> ids(count);
  for (int64_t i = 0; i < count; ++i) ids[i] = i;
  return ids;
}

TEST(DropPath, FactorsAreZeroOrOneOverTheKeepRateWithMeanOne) {
  const scaling::VarShape shape = dropping_shape();
  constexpr int64_t kSamples = 20000;
  const Tensor factors_SB = drop_path_factors(shape, 1, 5, first_samples(kSamples));
  ASSERT_EQ(factors_SB.sizes(), (std::vector<int64_t>{8, kSamples}));
  for (int64_t site = 0; site < 8; ++site) {
    const double rate = 0.3 * static_cast<double>(site / 2) / 3;
    const Tensor row = factors_SB[site];
    const auto kept = static_cast<float>(1 / (1 - rate));
    EXPECT_TRUE((row.eq(0) | row.eq(kept)).all().item<bool>()) << site;
    // Five standard errors of the mean of a Bernoulli over its keep rate.
    const double deviation = std::sqrt(rate / (1 - rate) / kSamples);
    EXPECT_NEAR(row.mean(at::kDouble).item<double>(), 1, 5 * deviation + 1e-6) << site;
  }
  // Attention and feed-forward of one block are drawn apart: kept or dropped together by chance
  // alone.
  const double rate = 0.3, together = rate * rate + (1 - rate) * (1 - rate);
  const double share = factors_SB[6].eq(factors_SB[7]).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(share, together, 5 * std::sqrt(together * (1 - together) / kSamples));
}

TEST(DropPath, DependsOnSeedStepAndSampleButNotOnThePlaceInTheBatch) {
  const scaling::VarShape shape = dropping_shape();
  const std::vector<int64_t> ids = first_samples(512);
  const Tensor all = drop_path_factors(shape, 1, 5, ids);
  std::vector<int64_t> reversed(ids.rbegin(), ids.rend());
  EXPECT_TRUE(at::equal(drop_path_factors(shape, 1, 5, reversed), all.flip({1})));
  EXPECT_TRUE(at::equal(drop_path_factors(shape, 1, 5, {300, 7}),
                        all.index_select(1, at::tensor({300, 7}, at::kLong))));
  EXPECT_FALSE(at::equal(drop_path_factors(shape, 2, 5, ids), all));
  EXPECT_FALSE(at::equal(drop_path_factors(shape, 1, 6, ids), all));
}

TEST(DropPath, IsNoTensorWhereNothingIsDropped) {
  EXPECT_FALSE(drop_path_factors(test_shape(4, {1, 2}, 10), 1, 5, {0, 1}).defined());
}

TEST(DropPath, ScalesTheBranchesOfItsSample) {
  const at::NoGradGuard no_grad;
  const Var model = hash_model(test_shape(2, {1, 2, 3}, 10));
  const Var::Condition condition = model.condition(at::tensor({3, 4}, at::kLong));
  const Tensor x_BLC = test::hash_v("x", {2, 14, 128}).to(at::kFloat);
  const auto spans = model.spans(14);
  ForwardOptions options;
  options.drop_path_SB = at::ones({4, 2});
  EXPECT_TRUE(at::equal(model.block(1, x_BLC, condition, spans, options),
                        model.block(1, x_BLC, condition, spans, {})));
  // Sample 0: attention doubled, feed-forward dropped; sample 1: both dropped.
  options.drop_path_SB[2][0] = 2;
  options.drop_path_SB[3][0] = 0;
  options.drop_path_SB[2][1] = 0;
  options.drop_path_SB[3][1] = 0;
  const Tensor got = model.block(1, x_BLC, condition, spans, options);
  const Var::Modulation mod = model.modulation(1, condition, at::kFloat);
  const Tensor attn = model.attention_branch(1, x_BLC, mod, spans, {at::kFloat});
  EXPECT_LE(relative_max(got[0], (x_BLC + 2 * mod.gamma1 * attn)[0]), 1e-6);
  EXPECT_TRUE(at::equal(got[1], x_BLC[1]));
}

TEST(DropLabels, ReplacesTheirShareByTheNullClass) {
  constexpr int64_t kSamples = 20000;
  const Tensor labels_B = test::hash_int_tensor("labels", {kSamples}, 10);
  const Tensor dropped_B = drop_labels(labels_B, 10, 0.1, 1, 5, first_samples(kSamples));
  const Tensor null_B = dropped_B.eq(10);
  EXPECT_TRUE((null_B | dropped_B.eq(labels_B)).all().item<bool>());
  EXPECT_NEAR(null_B.to(at::kDouble).mean().item<double>(), 0.1,
              5 * std::sqrt(0.1 * 0.9 / kSamples));
  EXPECT_TRUE(at::equal(drop_labels(labels_B, 10, 0, 1, 5, first_samples(kSamples)), labels_B));
}

TEST(DropLabels, DependsOnSeedStepAndSampleButNotOnThePlaceInTheBatch) {
  const std::vector<int64_t> ids = first_samples(1000);
  const Tensor labels_B = at::zeros({1000}, at::kLong);
  const Tensor all = drop_labels(labels_B, 10, 0.3, 1, 5, ids);
  EXPECT_TRUE(
      at::equal(drop_labels(labels_B, 10, 0.3, 1, 5, {ids.rbegin(), ids.rend()}), all.flip({0})));
  EXPECT_FALSE(at::equal(drop_labels(labels_B, 10, 0.3, 2, 5, ids), all));
  EXPECT_FALSE(at::equal(drop_labels(labels_B, 10, 0.3, 1, 6, ids), all));
  EXPECT_EQ(labels_B.max().item<int64_t>(), 0);  // the given tensor is left alone
}

}  // namespace
}  // namespace varscale::models
