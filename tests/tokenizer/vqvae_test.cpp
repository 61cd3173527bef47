#include "tokenizer/vqvae.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "tests/support/hash_weights.hpp"
#include "tests/support/parity.hpp"

namespace varscale::tokenizer {
namespace {

std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(std::getenv("VARSCALE_FIXTURES")) / name;
}

std::filesystem::path scratch(const std::string& name) {
  return std::filesystem::path(testing::TempDir()) / fmt::format("{}-{}", ::getpid(), name);
}

VqvaeConfig config_64(bool unit_norm = false) {
  VqvaeConfig config;
  config.image_side = 64, config.channels = 32, config.scales = {1, 2, 3, 4},
  config.unit_norm = unit_norm;
  return config;
}

// Small enough to train in a test: 2,000 times fewer operations than the released one.
VqvaeConfig tiny_config() {
  VqvaeConfig config;
  config.image_side = 8, config.channels = 8, config.channel_mult = {1, 2}, config.blocks = 1,
  config.groups = 4;
  config.code_width = 4, config.vocabulary = 16, config.scales = {1, 2, 4}, config.phis = 2;
  return config;
}

Vqvae hash_vqvae(const VqvaeConfig& config) {
  Vqvae vqvae(config);
  test::fill_hash_weights(vqvae.state());
  return vqvae;
}

std::map<std::string, Tensor, std::less<>> observed(
    const std::function<void(const Observer&)>& pass) {
  std::map<std::string, Tensor, std::less<>> outputs;
  pass([&](std::string_view name, const Tensor& output) {
    outputs.insert_or_assign(std::string(name), output);
  });
  return outputs;
}

// Every stored activation; attention outputs count for the block's place where both are stored.
void check_activations(test::Parity& parity, const base::SafetensorsFile& file,
                       const std::map<std::string, Tensor, std::less<>>& outputs) {
  for (const auto& [key, view] : file.tensors()) {
    if (!key.starts_with("act.")) continue;
    const auto output = outputs.find(key.substr(4));
    if (output == outputs.end()) {
      ADD_FAILURE() << "no output observed for " << key;
      continue;
    }
    parity.check_stat(key, output->second, nn::load_tensor(file, key), 1e-5);
  }
}

TEST(Vqvae, NamesShapesAndOrderAreThePublicOnes) {
  const auto names = nlohmann::json::parse(std::ifstream(fixture("names.json"))).at("vqvae_ch160");
  const Vqvae vqvae{VqvaeConfig{}};
  std::vector<std::string> got, want;
  for (const auto& [name, tensor] : vqvae.parameters())
    got.push_back(fmt::format("{} {}", name, tensor.numel()));
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& row : names.at("state_dict")) {
    const auto shape = row.at(3).get<std::vector<int64_t>>();
    shapes[row.at(0)] = shape;
    if (row.at(1) == "p")
      want.push_back(
          fmt::format("{} {}", row.at(0).get<std::string>(), c10::multiply_integers(shape)));
  }
  EXPECT_EQ(got, want);
  for (const auto& [name, tensor] : vqvae.state())
    EXPECT_EQ(tensor.sizes().vec(), shapes.at(name)) << name;
  EXPECT_EQ(vqvae.state().size(), shapes.size());
  EXPECT_EQ(nn::count_elements(vqvae.parameters()), names.at("num_parameters").get<int64_t>());
}

TEST(Vqvae, EqualsThePublicCodeAt64) {
  test::Parity parity("vqvae_64");
  const base::SafetensorsFile file(fixture("vqvae_64.safetensors"));
  auto want = [&](const std::string& key) { return nn::load_tensor(file, key); };
  at::NoGradGuard no_grad;
  const Vqvae vqvae = hash_vqvae(config_64());
  Tensor x = want("image_u8").to(at::kFloat) / 255;
  const Tensor image = x + x - 1;
  parity.check_equal("image", image, want("image"));

  const Vqvae::Encoded encoded = vqvae.encode(image);
  parity.check_tensor("f", encoded.f_BCHW, want("f"), 1e-5);
  for (int k = 0; k < 4; ++k) {
    parity.check_equal(fmt::format("idx.{}", k), encoded.tokens[k], want(fmt::format("idx.{}", k)));
  }
  const Tensor tokens_BL = at::cat(encoded.tokens, 1);
  const std::vector<Tensor> f_hat = vqvae.quantizer().cumulative(tokens_BL);
  for (int k = 0; k < 4; ++k) {
    parity.check_tensor(fmt::format("f_hat.{}", k), f_hat[k], want(fmt::format("f_hat.{}", k)),
                        1e-5);
  }
  parity.check_tensor("var_input", vqvae.quantizer().teacher_input(tokens_BL), want("var_input"),
                      1e-5);
  const auto outputs = observed([&](const Observer& observe) {
    vqvae.features(image, observe);
    parity.check_tensor("dec_raw", vqvae.decode_raw(f_hat[3], observe), want("dec_raw"), 1e-5);
  });
  check_activations(parity, file, outputs);
  parity.check_absolute("dec_raw", vqvae.decode_raw(f_hat[3]), want("dec_raw"), 2e-5);
  parity.check_absolute("dec", vqvae.decode(f_hat[3]), want("dec"), 2e-5);
  parity.check_stat("rec.stat", vqvae.decode_tokens(tokens_BL), want("rec.stat"), 1e-5);
}

TEST(Vqvae, TrainingLossAndAllGradientsEqualThePublicCodes) {
  test::Parity parity("vqvae_64.train");
  const base::SafetensorsFile file(fixture("vqvae_64.safetensors"));
  const Tensor image = nn::load_tensor(file, "image");
  for (const bool unit_norm : {false, true}) {
    const std::string prefix = unit_norm ? "znorm." : "";
    const Vqvae vqvae = hash_vqvae(config_64(unit_norm));
    std::vector<Tensor> leaves;
    for (const auto& [name, tensor] : vqvae.parameters()) leaves.push_back(tensor.requires_grad_());
    const Vqvae::TrainOutput out = vqvae.forward_train(image, {});
    const Tensor mse = at::mse_loss(out.reconstruction_B3XX, image), loss = mse + out.vq_loss;
    const Tensor want = nn::load_tensor(file, prefix + "train.loss")[1];
    const Tensor got[] = {mse, out.vq_loss, loss};
    for (int i = 0; i < 3; ++i) {
      parity.check_scalar(fmt::format("{}train.loss[{}]", prefix, i), got[i].item<double>(),
                          want[i].item<double>(), 2e-6);
    }
    for (int k = 0; k < 4; ++k) {
      const std::string key = fmt::format("{}idx.{}", prefix, k);
      parity.check_equal(key, out.tokens[k].view({2, -1}), nn::load_tensor(file, key));
    }
    EXPECT_EQ(out.hits_SV.sum().item<float>(), 2 * 30);
    if (unit_norm) continue;
    parity.check_stat("train.rec.stat", out.reconstruction_B3XX,
                      nn::load_tensor(file, "train.rec.stat"), 1e-5);
    const auto grads = torch::autograd::grad({loss}, leaves);
    ASSERT_EQ(grads.size(), 323u);
    for (size_t i = 0; i < grads.size(); ++i) {
      const std::string& name = vqvae.parameters()[i].name;
      // With one channel per group a bias before the norm has no effect: the true gradient is zero and
      // float32 shows noise up to 2e-7; all other norms are above 2e-3.
      parity.check_grad(name, grads[i], nn::load_tensor(file, "grad." + name), 5e-5, 1e-6);
    }
  }
}

TEST(Vqvae, ReleasedArchitectureEqualsThePublicCodeAt256) {
  test::Parity parity("vqvae_256");
  const base::SafetensorsFile file(fixture("vqvae_256.safetensors"));
  auto want = [&](const std::string& key) { return nn::load_tensor(file, key); };
  at::NoGradGuard no_grad;
  Vqvae vqvae = hash_vqvae({});
  const Tensor x = want("image_u8").to(at::kFloat) / 255;
  Vqvae::Encoded encoded;
  auto outputs = observed(
      [&](const Observer& observe) { encoded.f_BCHW = vqvae.features(x + x - 1, observe); });
  encoded.tokens = vqvae.quantizer().encode(encoded.f_BCHW);
  parity.check_tensor("f", encoded.f_BCHW, want("f"), 1e-5);
  parity.check_stat("f.stat", encoded.f_BCHW, want("f.stat"), 1e-5);
  for (int k = 0; k < 10; ++k) {
    parity.check_equal(fmt::format("idx.{}", k), encoded.tokens[k], want(fmt::format("idx.{}", k)));
  }
  const Tensor tokens_BL = at::cat(encoded.tokens, 1);
  const std::vector<Tensor> f_hat = vqvae.quantizer().cumulative(tokens_BL);
  for (int k = 0; k < 10; ++k) {
    const std::string key = fmt::format("f_hat.{}.stat", k);
    parity.check_stat(key, f_hat[k], want(key), 1e-5);
  }
  parity.check_tensor("f_hat.9", f_hat[9], want("f_hat.9"), 1e-5);
  parity.check_tensor("var_input", vqvae.quantizer().teacher_input(tokens_BL), want("var_input"),
                      1e-5);
  Tensor raw;
  outputs.merge(
      observed([&](const Observer& observe) { raw = vqvae.decode_raw(f_hat[9], observe); }));
  check_activations(parity, file, outputs);
  parity.check_stat("dec_raw.stat", raw, want("dec_raw.stat"), 1e-5);
  parity.check_stat("dec.stat", raw.clamp(-1, 1), want("dec.stat"), 1e-5);
  auto every = at::indexing::Slice(at::indexing::None, at::indexing::None, 8);
  parity.check_absolute("dec_raw.stride8", raw.index({"...", every, every}),
                        want("dec_raw.stride8"), 2e-5);
  parity.check_absolute("dec_raw.crop32", raw.slice(2, 112, 144).slice(3, 112, 144),
                        want("dec_raw.crop32"), 2e-5);

  // As sampling decodes: channels-last, and large maps by other sums.
  vqvae.decode_in(at::kFloat);
  raw = vqvae.decode_raw(f_hat[9]);
  parity.check_stat("dec_raw.stat", raw, want("dec_raw.stat"), 1e-5);
  parity.check_absolute("dec_raw.stride8", raw.index({"...", every, every}), want("dec_raw.stride8"), 2e-5);
  parity.check_absolute("dec_raw.crop32", raw.slice(2, 112, 144).slice(3, 112, 144), want("dec_raw.crop32"), 2e-5);
}

TEST(Vqvae, SavedFileCarriesWeightsConfigurationAndFingerprint) {
  const auto path = scratch("tok.safetensors");
  Vqvae vqvae(tiny_config());
  vqvae.initialise(Init::kZeroResidual, 3);
  vqvae.hits_SV().fill_(2);
  vqvae.save(path);
  const Vqvae back = Vqvae::load(path);
  EXPECT_EQ(back.fingerprint(), vqvae.fingerprint());
  EXPECT_EQ(base::dump_config(back.config()), base::dump_config(vqvae.config()));
  const nn::NamedTensors a = vqvae.state(), b = back.state();
  for (size_t i = 0; i < a.size(); ++i)
    EXPECT_TRUE(at::equal(a[i].tensor, b[i].tensor)) << a[i].name;
  const Tensor image = test::hash_v("image", {2, 3, 8, 8}).to(at::kFloat);
  EXPECT_TRUE(at::equal(back.tokens(image), vqvae.tokens(image)));
  std::filesystem::remove(path);
}

TEST(Vqvae, FingerprintFollowsWeightsAndConfigurationNotUseCounts) {
  Vqvae vqvae(tiny_config());
  vqvae.initialise(Init::kPublic, 3);
  const std::string before = vqvae.fingerprint();
  vqvae.hits_SV().fill_(7);
  EXPECT_EQ(vqvae.fingerprint(), before);
  vqvae.parameters()[5].tensor.view({-1})[0].add_(1e-3);
  EXPECT_NE(vqvae.fingerprint(), before);
  VqvaeConfig other = tiny_config();
  other.phi_ratio = 0.25;
  Vqvae second(other);
  second.initialise(Init::kPublic, 3);
  EXPECT_NE(second.fingerprint(), before);
}

TEST(Vqvae, ReadsPublicKeyNamesWithoutMetadataAndRefusesOthers) {
  const auto path = scratch("public.safetensors");
  nn::save_tensors(path, {{"some.weight", at::zeros({2})}});
  EXPECT_THROW(Vqvae::load(path), base::UserError);
  // Right names, but a size the released architecture does not have.
  nn::save_tensors(path, Vqvae(tiny_config()).state());
  EXPECT_THROW(Vqvae::load(path), base::UserError);
  std::filesystem::remove(path);
}

TEST(Vqvae, ConfigurationsThatDoNotFitAreRefused) {
  auto refused = [](auto change) {
    VqvaeConfig config = tiny_config();
    change(config);
    EXPECT_THROW(Vqvae{config}, base::UserError);
  };
  refused([](VqvaeConfig& c) { c.image_side = 16; });
  refused([](VqvaeConfig& c) { c.groups = 3; });
  refused([](VqvaeConfig& c) { c.scales = {4, 2}; });
  refused([](VqvaeConfig& c) { c.phis = 5; });
  refused([](VqvaeConfig& c) { c.channel_mult = {}; });
}

// A device without numbers stands in for a GPU: nothing may stay behind.
TEST(Vqvae, IsCopiedToADeviceAsAWhole) {
  Vqvae here(tiny_config());
  here.initialise(Init::kPublic, 3);
  for (const auto& [name, tensor] : here.to(at::kMeta).state()) EXPECT_TRUE(tensor.is_meta()) << name;
  const Vqvae copy = here.to(at::kCPU);
  EXPECT_EQ(copy.fingerprint(), here.fingerprint());
  const Tensor x = test::hash_v("image", {2, 3, 8, 8}).to(at::kFloat);
  const Tensor tokens_BL = here.tokens(x);
  here.initialise(Init::kPublic, 4);  // and it is a copy
  EXPECT_FALSE(at::equal(here.tokens(x), tokens_BL));
  EXPECT_TRUE(at::equal(copy.tokens(x), tokens_BL));
}

// bf16 keeps 8 bits of a product's factors: an image of range 2 moves by hundredths, and one that did not go through bf16
// at all would not move.
TEST(Vqvae, DecodesInBf16NearFp32AndLeavesTheEncoderAlone) {
  const at::NoGradGuard no_grad;
  const Vqvae exact = hash_vqvae(config_64());
  Vqvae rounded = hash_vqvae(config_64());
  const Tensor tokens_BL = at::arange(60, at::kLong).view({2, 30}).remainder(exact.config().vocabulary);
  const Tensor expected = exact.decode_tokens(tokens_BL);
  rounded.decode_in(at::kFloat);
  EXPECT_LT((rounded.decode_tokens(tokens_BL) - expected).abs().max().item<double>(), 2e-5);  // as the fixtures' bound
  rounded.decode_in(at::kBFloat16);
  const Tensor image = rounded.decode_tokens(tokens_BL);
  EXPECT_EQ(image.scalar_type(), at::kFloat);
  const double moved = (image - expected).abs().mean().item<double>();
  EXPECT_GT(moved, 1e-6);
  EXPECT_LT(moved, 0.02);
  EXPECT_TRUE(at::equal(rounded.features(expected), exact.features(expected)));
}

// Beside an even use: nothing is known of a code while all are as likely, log V nats once choices are decided.
TEST(Vqvae, EntropyTermIsMinusWhatAPlaceTellsOfItsCode) {
  const at::NoGradGuard no_grad;
  const Vqvae vqvae = hash_vqvae(tiny_config());
  const Tensor image = at::linspace(-1, 1, 2 * 3 * 8 * 8).view({2, 3, 8, 8});
  const int64_t codes = vqvae.config().vocabulary;
  const Tensor usage_V = at::full({codes}, 1.0 / static_cast<double>(codes));
  auto term = [&](double temperature) {
    return vqvae.forward_train(image, {.usage_V = usage_V, .entropy_temperature = temperature})
        .entropy_loss.item<double>();
  };
  EXPECT_NEAR(term(1e6), 0, 1e-3);
  EXPECT_NEAR(term(1e-6), -std::log(static_cast<double>(codes)), 1e-3);
}

TEST(Vqvae, InitialisationIsAFunctionOfSeedAndName) {
  Vqvae a(tiny_config()), b(tiny_config()), c(tiny_config());
  a.initialise(Init::kPublic, 1);
  b.initialise(Init::kPublic, 1);
  c.initialise(Init::kPublic, 2);
  EXPECT_EQ(a.fingerprint(), b.fingerprint());
  EXPECT_NE(a.fingerprint(), c.fingerprint());
  for (const auto& [name, tensor] : a.parameters()) {
    if (tensor.dim() != 4) continue;
    const double bound = 1 / std::sqrt(static_cast<double>(tensor[0].numel()));
    EXPECT_LE(tensor.abs().max().item<double>(), bound * (1 + 1e-6)) << name;
    EXPECT_GT(tensor.abs().max().item<double>(), 0.5 * bound) << name;
  }
}

TEST(Vqvae, ZeroResidualBlocksStartAsTheIdentity) {
  Vqvae vqvae(tiny_config());
  vqvae.initialise(Init::kZeroResidual, 1);
  nn::NamedTensors parameters;
  const ResidualBlock block(Builder("x.", 4, parameters, {}), 8, 8);
  for (const auto& [name, tensor] : vqvae.parameters()) {
    const bool closes = name.ends_with("conv2.weight") || name.ends_with("proj_out.weight");
    if (tensor.dim() != 4) continue;
    EXPECT_EQ(tensor.abs().max().item<float>() == 0, closes) << name;
  }
  const Tensor x = test::hash_v("x", {1, 8, 4, 4}).to(at::kFloat);
  EXPECT_TRUE(at::equal(block(x), x));
}

}  // namespace
}  // namespace varscale::tokenizer
