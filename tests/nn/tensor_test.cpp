#include "nn/tensor.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/hash_weights.hpp"

namespace varscale::nn {
namespace {

using testing::HasSubstr;

NamedTensors sample() {
  return {{"a.weight", test::hash_v("a", {3, 4}).to(at::kFloat)},
          {"a.bias", test::hash_v("b", {4}).to(at::kBFloat16)},
          {"ids", test::hash_int_tensor("i", {2, 2, 2}, 100)},
          {"scalar", at::full({}, 2.5, at::kDouble)},
          {"empty", at::empty({0, 3})}};
}

TEST(SavedTensors, ComeBackBitForBit) {
  const base::TemporaryFolder folder;
  const auto path = folder.path() / "t.safetensors";
  save_tensors(path, sample(), {{"step", "7"}});
  const base::SafetensorsFile file(path);
  EXPECT_EQ(file.metadata().at("step"), "7");
  for (const NamedTensor& named : sample()) {
    const Tensor back = load_tensor(file, named.name);
    EXPECT_EQ(back.scalar_type(), named.tensor.scalar_type());
    EXPECT_TRUE(at::equal(back, named.tensor)) << named.name;
  }
}

TEST(SavedTensors, TransposedOnesAreStoredInTheirLogicalOrder) {
  const base::TemporaryFolder folder;
  const Tensor x = test::hash_v("x", {3, 5}).t();
  save_tensors(folder.path() / "t.safetensors", {{"x", x}});
  const base::SafetensorsFile file(folder.path() / "t.safetensors");
  EXPECT_TRUE(at::equal(load_tensor(file, "x"), x));
}

TEST(LoadTensors, FillsParametersInPlaceAndConverts) {
  const base::TemporaryFolder folder;
  save_tensors(folder.path() / "t.safetensors",
               {{"model.w", at::full({2, 2}, 0.5, at::kBFloat16)}, {"other", at::ones({1})}});
  const base::SafetensorsFile file(folder.path() / "t.safetensors");
  const Tensor w = at::zeros({2, 2}).set_requires_grad(true);
  load_tensors(file, {{"w", w}}, "model.");  // "other" is not below the prefix
  EXPECT_TRUE(at::equal(w, at::full({2, 2}, 0.5)));
}

TEST(LoadTensors, NamesTheFileAndTheKeyThatDoNotFit) {
  const base::TemporaryFolder folder;
  save_tensors(folder.path() / "t.safetensors",
               {{"w", at::ones({2, 3})}, {"whole", at::ones({2, 3}, at::kChar)}, {"surplus", at::ones({1})}});
  const base::SafetensorsFile file(folder.path() / "t.safetensors");
  const Tensor good = at::zeros({2, 3}), bad = at::zeros({3, 2});
  EXPECT_THAT(
      base::message_of<base::UserError>([&] {
        load_tensors(file, {{"w", bad}});
      }),
      testing::AllOf(HasSubstr("t.safetensors"), HasSubstr("w has shape [2, 3], expected [3, 2]")));
  EXPECT_THAT(base::message_of<base::UserError>([&] {
                load_tensors(file, {{"w", good}});
              }),
              HasSubstr("surplus"));
  EXPECT_THAT(base::message_of<base::UserError>([&] {
                load_tensors(file, {{"v", good}});
              }),
              HasSubstr("t.safetensors"));
  EXPECT_THAT(base::message_of<base::UserError>([&] {
                load_tensors(file, {{"whole", good}});
              }),
              HasSubstr("t.safetensors: whole has dtype Char, expected floating point"));
  EXPECT_TRUE(at::equal(good, at::ones({2, 3})));  // of "w", before its surplus was seen
  load_tensors(file, {{"w", good}}, "", /*strict=*/false);
  EXPECT_TRUE(at::equal(good, at::ones({2, 3})));
}

TEST(Fingerprint, ChangesWithNameShapeTypeAndValue) {
  const Tensor x = at::ones({2, 3});
  const std::string base_print = fingerprint({{"x", x}});
  EXPECT_EQ(base_print.size(), 64u);
  EXPECT_EQ(fingerprint({{"x", x.clone()}}), base_print);
  EXPECT_NE(fingerprint({{"y", x}}), base_print);
  EXPECT_NE(fingerprint({{"x", x.view({3, 2})}}), base_print);
  EXPECT_NE(fingerprint({{"x", x.view(at::kInt)}}), base_print);
  Tensor other = x.clone();
  other[1][2] = 1.0000001F;
  EXPECT_NE(fingerprint({{"x", other}}), base_print);
}

TEST(CountElements, SumsAllTensors) { EXPECT_EQ(count_elements(sample()), 12 + 4 + 8 + 1 + 0); }

}  // namespace
}  // namespace varscale::nn
