#include "scaling/count.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"

namespace varscale::scaling {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

const ScaleList kScales256({1, 2, 3, 4, 5, 6, 8, 10, 13, 16});
const ScaleList kScales512({1, 2, 3, 4, 6, 9, 13, 18, 24, 32});

VarShape shape_256(int64_t depth) {
  return VarShape::from_depth(depth, {4096, 32, kScales256}, 1000);
}
VarShape shape_d36() { return VarShape::from_depth(36, {4096, 32, kScales512}, 1000, true); }

TEST(CountParameters, EqualsThePublicModels) {
  EXPECT_EQ(count_parameters(shape_256(16)).total(), 310'283'520);
  EXPECT_EQ(count_parameters(shape_256(20)).total(), 600'917'136);
  EXPECT_EQ(count_parameters(shape_256(24)).total(), 1'033'399'360);
  EXPECT_EQ(count_parameters(shape_256(30)).total(), 2'010'020'356);
  EXPECT_EQ(count_parameters(shape_d36()).total(), 2'353'893'904);
}

// Which part a tensor of the public state dict belongs to.
int64_t& part_of(const std::string& name, ParameterCount& count) {
  const auto has = [&](const char* piece) { return name.find(piece) != std::string::npos; };
  if (has("class_emb")) return count.class_embedding;
  if (has("pos_") || has("lvl_embed")) return count.positions;
  if (has("word_embed")) return count.word_embedding;
  if (has("head_nm")) return count.head_adaln;
  if (has("ada_")) return count.adaln;
  if (has(".attn.")) return count.attention;
  if (has(".ffn.")) return count.feed_forward;
  EXPECT_TRUE(has("head.")) << name;
  return count.head;
}

TEST(CountParameters, EveryPartEqualsThePublicTensorLists) {
  const char* fixtures = std::getenv("VARSCALE_FIXTURES");
  ASSERT_NE(fixtures, nullptr) << "run through ctest, which sets VARSCALE_FIXTURES";
  const auto names = base::parse_json(base::read_file(std::string(fixtures) + "/names.json"));
  const std::pair<const char*, VarShape> models[] = {{"var_d16_256", shape_256(16)},
                                                     {"var_d30_256", shape_256(30)},
                                                     {"var_d36_512_saln", shape_d36()}};
  for (const auto& [model, shape] : models) {
    SCOPED_TRACE(model);
    ParameterCount expected;
    for (const auto& tensor : names.at(model).at("state_dict")) {
      if (tensor.at(1) != "p") continue;
      int64_t numel = 1;
      for (const auto& size : tensor.at(3)) numel *= size.get<int64_t>();
      part_of(tensor.at(0), expected) += numel;
    }
    const ParameterCount count = count_parameters(shape);
    EXPECT_EQ(count.class_embedding, expected.class_embedding);
    EXPECT_EQ(count.positions, expected.positions);
    EXPECT_EQ(count.word_embedding, expected.word_embedding);
    EXPECT_EQ(count.attention, expected.attention);
    EXPECT_EQ(count.feed_forward, expected.feed_forward);
    EXPECT_EQ(count.adaln, expected.adaln);
    EXPECT_EQ(count.head_adaln, expected.head_adaln);
    EXPECT_EQ(count.head, expected.head);
    EXPECT_EQ(count.total(), names.at(model).at("num_parameters").get<int64_t>());
  }
}

TEST(CountParameters, RulesSplitTheTotalAndKeepTheirNames) {
  const ParameterCount count = count_parameters(shape_256(6));
  EXPECT_EQ(count.paper_rule, 73728 * 6 * 6 * 6);  // 15.9 M: not the paper's 18.5 M
  EXPECT_EQ(count_parameters(shape_d36()).paper_rule, 49152LL * 36 * 36 * 36);
  EXPECT_EQ(count.embeddings() + count.blocks() + count.head_adaln + count.head, count.total());
  EXPECT_EQ(count.blocks(), 6 * (18 * 384 * 384 + 14 * 384 + 6));
  EXPECT_EQ(count.by_rule("n_total"), count.total());
  EXPECT_EQ(count.by_rule("n_non_embedding"), count.total() - count.embeddings());
  EXPECT_EQ(count.by_rule("n_blocks"), count.blocks());
  EXPECT_EQ(count.by_rule("n_blocks_no_adaln"), count.blocks() - count.adaln);
  EXPECT_EQ(count.by_rule("n_paper_rule"), count.paper_rule);
  EXPECT_THAT(
      [&] { count.by_rule("n_all"); },
      ThrowsMessage<base::UserError>(HasSubstr("'n_all' is not known; expected one of n_total,")));
}

TEST(CountParameters, FollowsEverySettingOfTheShape) {
  // Counted by hand: w 12, 3 heads, h 24, 5 classes, V 7, Cvae 2, scales 2,3 (13 tokens), 2 blocks.
  VarShape shape;
  shape.depth = 2, shape.width = 12, shape.heads = 3, shape.mlp_ratio = 2, shape.classes = 5;
  shape.tokens = {7, 2, ScaleList({2, 3})};
  shape.attn_l2_norm = false;
  ParameterCount count = count_parameters(shape);
  EXPECT_EQ(count.class_embedding, 6 * 12);
  EXPECT_EQ(count.positions,
            4 * 12 + 13 * 12 + 2 * 12);  // the start has a position per first-map token
  EXPECT_EQ(count.word_embedding, 2 * 12 + 12);
  EXPECT_EQ(count.attention, 2 * (36 * 12 + 12 + 12 + 12 * 12 + 12));
  EXPECT_EQ(count.feed_forward, 2 * (24 * 12 + 24 + 12 * 24 + 12));
  EXPECT_EQ(count.adaln, 2 * (72 * 12 + 72));
  EXPECT_EQ(count.head_adaln, 24 * 12 + 24);
  EXPECT_EQ(count.head, 7 * 12 + 7);
  const int64_t without_norm = count.attention;
  shape.attn_l2_norm = true;
  EXPECT_EQ(count_parameters(shape).attention, without_norm + 2 * 3);
  shape.shared_adaln = true;
  EXPECT_EQ(count_parameters(shape).adaln, 72 * 12 + 72 + 2 * 72);
}

// The table of the paper's schedule at 256 px, as printed: N in M, forward GFLOP an image,
// attention's share in %, 6 N 680 / (3 forward).
struct PrintedRow {
  int64_t depth;
  const char *parameters_m, *forward_gflop, *attention_percent, *six_nd_ratio;
};
constexpr PrintedRow kPrinted[] = {
    {6, "18.49", "19.2", "13.7", "1.31"},    {8, "41.32", "41.8", "11.2", "1.34"},
    {10, "78.37", "77.8", "9.4", "1.37"},    {12, "133.2", "130.5", "8.1", "1.39"},
    {14, "209.3", "203.0", "7.1", "1.40"},   {16, "310.3", "298.5", "6.3", "1.41"},
    {18, "439.6", "420.4", "5.7", "1.42"},   {20, "600.9", "571.7", "5.1", "1.43"},
    {22, "797.7", "755.7", "4.7", "1.44"},   {24, "1033.4", "975.6", "4.3", "1.44"},
    {26, "1311.7", "1234.7", "4.0", "1.44"}, {28, "1636.0", "1536.1", "3.7", "1.45"},
    {30, "2010.0", "1883.0", "3.5", "1.45"}};

// `value` with as many decimals as `printed` has.
std::string printed_as(double value, const std::string& printed) {
  return fmt::format("{:.{}f}", value, printed.size() - printed.find('.') - 1);
}

TEST(CountForward, ReproducesTheTableOfThePapersModels) {
  for (const PrintedRow& row : kPrinted) {
    SCOPED_TRACE(row.depth);
    const VarShape shape = shape_256(row.depth);
    const auto n = static_cast<double>(count_parameters(shape).total());
    const ForwardFlops forward = count_forward(shape);
    EXPECT_EQ(printed_as(n / 1e6, row.parameters_m), row.parameters_m);
    EXPECT_EQ(printed_as(forward.total() / 1e9, row.forward_gflop), row.forward_gflop);
    EXPECT_EQ(printed_as(100 * forward.attention_share(), row.attention_percent),
              row.attention_percent);
    EXPECT_EQ(printed_as(six_nd(n, 680) / training_flops(shape, 1), row.six_nd_ratio),
              row.six_nd_ratio);
  }
}

TEST(CountForward, AttentionShareAt512AndTheMasksDensity) {
  // L = 2240: d16 18.9 %, d30 11.2 %; the mask keeps 61.9 % of the square at 256 px, 65.2 % at 512
  // px.
  const auto share = [](int64_t depth) {
    return 100 * count_forward(VarShape::from_depth(depth, {4096, 32, kScales512}, 1000))
                     .attention_share();
  };
  EXPECT_EQ(fmt::format("{:.1f} {:.1f}", share(16), share(30)), "18.9 11.2");
  EXPECT_EQ(attention_pairs(kScales256), 286'434);  // of 680^2 = 462,400
  EXPECT_EQ(
      fmt::format("{:.3f}", static_cast<double>(attention_pairs(kScales512)) / (2240. * 2240.)),
      "0.652");
}

TEST(CountForward, PairsEqualTheMaskCountedEntryByEntry) {
  const ScaleList scales({1, 3, 4});
  int64_t pairs = 0;
  const auto scale_of = [&](int64_t token) {
    int64_t k = 0;
    while (token >= scales.end(k)) ++k;
    return k;
  };
  for (int64_t query = 0; query < scales.tokens(); ++query)
    for (int64_t key = 0; key < scales.tokens(); ++key)
      if (scale_of(key) <= scale_of(query)) ++pairs;
  EXPECT_EQ(attention_pairs(scales), pairs);
}

TEST(CountForward, ScalesAndAdaLNSumToEveryMatrixProductOfTheModel) {
  // The same work listed by product instead of by scale; shapes chosen so that no two terms are
  // equal.
  VarShape shape;
  shape.depth = 3, shape.width = 20, shape.heads = 5, shape.mlp_ratio = 3, shape.classes = 4;
  shape.tokens = {11, 6, ScaleList({1, 2, 4})};
  const double w = 20, tokens = 21, d = 3;
  const double products = tokens * (3 * w * w + w * w + 2 * w * 3 * w) * d  // the blocks' linears
                          + 2 * (1 * 1 + 4 * 5 + 16 * 21) * w * d           // q k^T and p v
                          + 20 * 6 * w + tokens * w * 11 + 6 * w * w * d + 2 * w * w;
  const ForwardFlops forward = count_forward(shape);
  EXPECT_EQ(forward.total(), 2 * products);
  EXPECT_EQ(forward.scales.size(), 3u);
  EXPECT_EQ(forward.scales[0].word_embedding, 0);
  EXPECT_EQ(training_flops(shape, 7), 3 * 7 * 2 * products);
  shape.shared_adaln = true;
  EXPECT_EQ(forward.total() - count_forward(shape).total(), 2 * 6 * w * w * (d - 1));
}

TEST(CountForward, LastScaleTakesAboutItsShareOfTheTokens) {
  const ForwardFlops forward = count_forward(shape_256(16));
  // Linear work is proportional to tokens: 256 of 680. Attention's share is larger: it sees all
  // keys.
  EXPECT_DOUBLE_EQ(forward.scales[9].linear * 680, forward.scales[0].linear * 256 * 680);
  EXPECT_DOUBLE_EQ(forward.scales[9].attention, 2. * 2 * 256 * 680 * 1024 * 16);
}

TEST(Units, ArePaperEquations) {
  EXPECT_DOUBLE_EQ(to_billions(310'283'520), 0.31028352);
  EXPECT_DOUBLE_EQ(to_petaflop(2.5e20), 2.5e5);
}

}  // namespace
}  // namespace varscale::scaling
