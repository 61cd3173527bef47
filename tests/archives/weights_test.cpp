// What is a VAR by its keys, and files of weights.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "archives/public_var.hpp"
#include "archives/tensor_source.hpp"
#include "archives/weights_file.hpp"
#include "base/error.hpp"
#include "tests/archives/fixture.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::archives {
namespace {

using base::DType;
using base::UserError;
using scaling::ScaleList;
using scaling::StateEntry;
using scaling::StateKind;
using scaling::VarShape;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::string sentence_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(RecogniseVar, ReadsThePublicModelOffItsShapes) {
  for (const char* name :
       {"var_d1_tiny.pth", "var_d1_tiny.safetensors", "trainer_ckpt_tiny.pth", "trainer_ckpt_tiny.safetensors"}) {
    const TensorSource source = TensorSource::open(fixture(name), Part::kVar);
    const VarShape shape = recognise_var(source, {});
    EXPECT_EQ(shape.depth, 1) << name;
    EXPECT_EQ(shape.width, 64) << name;
    EXPECT_EQ(shape.heads, 1) << name;
    EXPECT_EQ(shape.mlp_ratio, 4) << name;
    EXPECT_EQ(shape.classes, 10) << name;
    EXPECT_EQ(shape.tokens.vocabulary, 64) << name;
    EXPECT_EQ(shape.tokens.code_width, 32) << name;
    EXPECT_THAT(shape.tokens.scales.sides(), ElementsAre(1, 2, 3)) << name;
    EXPECT_FALSE(shape.shared_adaln) << name;
    EXPECT_TRUE(shape.attn_l2_norm) << name;
    check_buffers(source, shape);
  }
}

TEST(TensorSource, ChoosesThePartOfACheckpoint) {
  EXPECT_THAT([] { TensorSource::open(fixture("trainer_ckpt_tiny.pth")); },
              ThrowsMessage<UserError>(HasSubstr("choose by --part var or --part vae")));
  const TensorSource tokenizer = TensorSource::open(fixture("trainer_ckpt_tiny.pth"), Part::kTokenizer);
  EXPECT_EQ(tokenizer.part(), Part::kTokenizer);
  EXPECT_EQ(tokenizer.tensors().size(), 15u);
  EXPECT_THAT(*tokenizer.scales(), ElementsAre(1, 2, 3));
  EXPECT_THAT(tokenizer.where(), testing::EndsWith("trainer_ckpt_tiny.pth: trainer.vae_local"));
  EXPECT_EQ(TensorSource::open(fixture("trainer_ckpt_tiny.safetensors")).part(), Part::kVar);  // it has that one alone
  EXPECT_THAT([] { TensorSource::open(fixture("var_d1_tiny.pth"), Part::kTokenizer); },
              ThrowsMessage<UserError>(HasSubstr("holds a VAR, asked for is a tokenizer")));
  EXPECT_THAT([] { TensorSource::open(fixture("legacy_format.pth")); },
              ThrowsMessage<UserError>(HasSubstr("neither a public VAR")));
  EXPECT_THAT([] { TensorSource::open(fixture("misc_types.pth")); },
              ThrowsMessage<UserError>(HasSubstr("key 'sd' is a dict")));
  EXPECT_THAT([] { TensorSource::open(fixture("trainer_ckpt_tiny.json")); },
              ThrowsMessage<UserError>(HasSubstr("not a file of torch.save")));
}

TEST(TensorSource, WidensHalfPrecisionExactly) {
  const base::TemporaryFolder folder;
  const uint16_t half[] = {0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0001, 0x83ff, 0x0400, 0x7c00, 0xfc00};
  const uint16_t brain[] = {0x3f80, 0xc049};
  base::SafetensorsWriter writer;
  writer.add("blocks.0.h", DType::kF16, {10}, half);
  writer.add("blocks.0.b", DType::kBF16, {2}, brain);
  writer.add("blocks.0.i", DType::kI32, {1}, brain);
  writer.save(folder.path() / "a");
  const TensorSource source = TensorSource::open(folder.path() / "a");
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_THAT(source.read_float("blocks.0.h"),
              ElementsAre(0.0f, 0.0f, 1.0f, -2.0f, 65504.0f, 0x1p-24f, -0x1.ff8p-15f, 0x1p-14f, inf, -inf));
  EXPECT_TRUE(std::signbit(source.read_float("blocks.0.h")[1]));
  EXPECT_THAT(source.read_float("blocks.0.b"), ElementsAre(1.0f, -3.140625f));
  EXPECT_THAT([&] { source.read_float("blocks.0.i"); }, ThrowsMessage<UserError>(HasSubstr("is I32, expected F32")));
}

// --- state dicts made here ---
struct Change {
  std::set<std::string> without = {};
  std::map<std::string, std::vector<int64_t>> with = {};  // of this shape
  std::map<std::string, float> first = {};                // first value of these
};

class Var : public testing::Test {
 protected:
  base::TemporaryFolder folder_;
  std::filesystem::path path_ = folder_.path() / "var.pth";

  // A state dict with the public buffers; parameters count up by sixteenths.
  void write(const VarShape& shape, const Change& change = {}) {
    std::vector<PthWriter::Tensor> tensors;
    std::vector<std::string> bytes;
    float value = 0;
    const std::vector<int64_t> levels = scaling::token_levels(shape.tokens.scales);
    std::vector<StateEntry> state = public_state(shape);
    for (const auto& [name, sizes] : change.with) {
      const auto known = std::ranges::find(state, name, &StateEntry::name);
      if (known != state.end())
        known->shape = sizes;
      else
        state.push_back({name, sizes});
    }
    for (const StateEntry& entry : state) {
      if (change.without.contains(entry.name)) continue;
      int64_t numel = 1;
      for (const int64_t size : entry.shape) numel *= size;
      if (entry.kind == StateKind::kLevels) {
        tensors.push_back({entry.name, DType::kI64, entry.shape});
        bytes.emplace_back(reinterpret_cast<const char*>(levels.data()), levels.size() * sizeof(int64_t));
        continue;
      }
      std::vector<float> values(static_cast<size_t>(numel), 0.0f);
      for (size_t i = 0; i < values.size(); ++i) {
        if (entry.kind == StateKind::kParameter) values[i] = value += 0.0625f;
        if (entry.kind == StateKind::kMask && levels[i / levels.size()] < levels[i % levels.size()])
          values[i] = -std::numeric_limits<float>::infinity();
      }
      const auto first = change.first.find(entry.name);
      if (first != change.first.end()) values[0] = first->second;
      tensors.push_back({entry.name, DType::kF32, entry.shape});
      bytes.emplace_back(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    }
    PthWriter out(path_, tensors);
    for (const std::string& each : bytes) out.write(each.data(), each.size());
    out.commit();
  }
  VarShape read(const ShapeHints& hints = {}) {
    const TensorSource source = TensorSource::open(path_);
    const VarShape shape = recognise_var(source, hints);
    check_buffers(source, shape);
    return shape;
  }
  std::string refusal(const VarShape& shape, const Change& change, const ShapeHints& hints = {}) {
    write(shape, change);
    return sentence_of([&] { read(hints); });
  }
  static VarShape tiny(std::vector<int64_t> sides = {1, 2, 3}, bool shared = false, bool norm = true) {
    VarShape shape = VarShape::from_depth(2, {8, 4, ScaleList(std::move(sides))}, 3, shared);
    shape.width = 8;
    shape.heads = 2;
    shape.attn_l2_norm = norm;
    return shape;
  }
  static Change without_buffers() {
    return {.without = {"lvl_1L", "attn_bias_for_masking", "blocks.0.attn.zero_k_bias", "blocks.1.attn.zero_k_bias"}};
  }
};

TEST_F(Var, IsRecognisedInEachForm) {
  for (const bool shared : {false, true}) {
    for (const bool norm : {false, true}) {
      write(tiny({1, 2, 3}, shared, norm));
      const VarShape shape = read({.heads = norm ? 0 : 2});
      EXPECT_EQ(shape.shared_adaln, shared);
      EXPECT_EQ(shape.attn_l2_norm, norm);
      EXPECT_EQ(shape.depth, 2);
      EXPECT_EQ(shape.heads, 2);
      EXPECT_EQ(shape.classes, 3);
    }
  }
  EXPECT_THAT(refusal(tiny({1, 2, 3}, false, false), {}), HasSubstr("give them by --heads"));
  EXPECT_THAT(refusal(tiny(), {}, {.heads = 4}), HasSubstr("is of 2 heads, --heads says 4"));
}

TEST_F(Var, TakesItsScalesFromWhereTheyAreSaid) {
  // No other three squares that begin with 1 make 14.
  write(tiny(), without_buffers());
  EXPECT_THAT(read().tokens.scales.sides(), ElementsAre(1, 2, 3));
  const std::vector<int64_t> sides = {1, 5, 6, 10};
  write(tiny(sides));
  EXPECT_EQ(read().tokens.scales.sides(), sides);  // by lvl_1L
  write(tiny({1, 5, 6, 10}), without_buffers());   // 162 tokens, as 1, 2, 6, 11 have
  EXPECT_THAT(sentence_of([&] { read(); }),
              HasSubstr("several lists of 4 maps have 162 tokens; give the sides by --scales"));
  EXPECT_THAT(read({.scales = {1, 2, 6, 11}}).tokens.scales.sides(), ElementsAre(1, 2, 6, 11));
  EXPECT_THAT(sentence_of([&] {
                read({.scales = {1, 2, 3, 4}});
              }),
              HasSubstr("4 maps with 162 tokens are in the file, the sides 1,2,3,4 are 4 with 30"));
  EXPECT_THAT(sentence_of([&] { read({.scales = {1, 3, 2, 4}}); }), HasSubstr(path_.string()));
}

TEST_F(Var, OfThePublishedSidesNeedsNoBuffers) {
  for (const std::vector<int64_t>& sides : published_scales()) {
    write(tiny(sides), without_buffers());
    EXPECT_EQ(read().tokens.scales.sides(), sides);
  }
}

TEST_F(Var, IsRefusedByTheFirstWrongKeyAndTheirNumber) {
  EXPECT_THAT(refusal(tiny(), {.without = {"head.bias", "blocks.1.attn.q_bias"}}),
              HasSubstr("key blocks.1.attn.q_bias is missing (and 1 more)"));
  EXPECT_THAT(refusal(tiny(), {.without = {"blocks.1.ffn.fc2.bias"}}),
              testing::EndsWith("key blocks.1.ffn.fc2.bias is missing"));
  EXPECT_THAT(refusal(tiny(), {.with = {{"blocks.0.extra", {1}}, {"ema.x", {2}}, {"y", {2}}}}),
              HasSubstr("key blocks.0.extra is none of the public model's (and 2 more)"));
  EXPECT_THAT(refusal(tiny(), {.with = {{"blocks.1.attn.proj.weight", {8, 9}}}}),
              HasSubstr("blocks.1.attn.proj.weight has shape [8, 9], expected [8, 8]"));
  EXPECT_THAT(refusal(tiny(), {.with = {{"pos_1LC", {14, 8}}}}),
              HasSubstr("pos_1LC has shape [14, 8], expected 3 dimensions"));
  EXPECT_THAT(refusal(tiny(), {.with = {{"blocks.9999999.x", {1}}}}), HasSubstr("is not of a block"));
  EXPECT_THAT(refusal(tiny(), {.without = {"pos_1LC"}}), HasSubstr("no key pos_1LC"));
}

TEST_F(Var, IsRefusedWithOtherBuffers) {
  EXPECT_THAT(refusal(tiny(), {.first = {{"blocks.1.attn.zero_k_bias", 0.5f}}}),
              HasSubstr("blocks.1.attn.zero_k_bias is not what the model computes with: expected zeros"));
  EXPECT_THAT(refusal(tiny(), {.first = {{"attn_bias_for_masking", 1.0f}}}), HasSubstr("attn_bias_for_masking is not"));
}

TEST_F(Var, OfAFileOfWeightsIsComparedBeyondItsKeys) {
  const VarShape shape = tiny({1, 5, 6, 10}, false, /*norm=*/false);
  write_weights(path_, shape, {},
                [](const StateEntry& entry, float* out) { *out = static_cast<float>(entry.shape[0]); });
  const WeightsFile file(path_);
  VarShape other = shape;
  other.heads = 4;
  EXPECT_THAT([&] { file.check_fits(other); }, ThrowsMessage<UserError>(HasSubstr("has 2 heads, expected 4")));
  EXPECT_THAT(
      [&] {
        file.check_fits(tiny({1, 2, 6, 11}, false, false));
      },
      ThrowsMessage<UserError>(HasSubstr("sides 1,5,6,10, expected 1,2,6,11")));
}

TEST_F(Var, SurvivesAFileOfWeights) {
  write(tiny());
  const TensorSource source = TensorSource::open(path_);
  const VarShape shape = read();
  const auto copy = [&](const StateEntry& entry, float* out) { std::ranges::copy(source.read_float(entry.name), out); };
  const std::filesystem::path target = folder_.path() / "w.safetensors";
  const std::string fingerprint = write_weights(target, shape, {{"source", "here"}}, copy);
  const WeightsFile file(target);
  file.verify();
  file.check_fits(shape);
  EXPECT_EQ(file.fingerprint(), fingerprint);
  EXPECT_EQ(file.metadata().at("source"), "here");
  for (const StateEntry& entry : parameters_of(shape))
    EXPECT_THAT(file.values(entry.name), testing::ElementsAreArray(source.read_float(entry.name))) << entry.name;
  // Not of what was told about them.
  EXPECT_EQ(write_weights(folder_.path() / "v.safetensors", shape, {}, copy), fingerprint);

  const auto misfit = [&](const std::function<void(VarShape&)>& change) {
    VarShape other = shape;
    change(other);
    return sentence_of([&] { file.check_fits(other); });
  };
  EXPECT_THAT(misfit([](VarShape& s) { s.depth = 3; }),
              HasSubstr("has no blocks.2.attn.scale_mul_1H11 (depth 2, expected 3)"));
  EXPECT_THAT(misfit([](VarShape& s) { s.depth = 1; }),
              HasSubstr("has blocks.1.attn.scale_mul_1H11, which the model has not"));
  EXPECT_THAT(misfit([](VarShape& s) { s.classes = 4; }),
              HasSubstr("class_emb.weight has shape [4, 8], expected [5, 8]"));
  EXPECT_THAT(misfit([](VarShape& s) { s.heads = 4; }),
              HasSubstr("scale_mul_1H11 has shape [1, 2, 1, 1], expected [1, 4, 1, 1]"));
  EXPECT_THAT(misfit([](VarShape& s) {
                s.tokens.scales = ScaleList({1, 2});
              }),
              HasSubstr("pos_1LC has shape [1, 14, 8], expected [1, 5, 8]"));
  EXPECT_THAT(misfit([](VarShape& s) { s.attn_l2_norm = false; }), HasSubstr("which the model has not"));

  std::string bytes = base::read_file(target);
  bytes[bytes.size() - 3] ^= 1;
  base::write_file_atomic(target, bytes);
  EXPECT_THAT([&] { WeightsFile(target).verify(); }, ThrowsMessage<UserError>(HasSubstr("the file was changed")));
  EXPECT_THAT([] { WeightsFile(fixture("var_d1_tiny.safetensors")); },
              ThrowsMessage<UserError>(HasSubstr("not a file of weights")));
}

}  // namespace
}  // namespace varscale::archives
