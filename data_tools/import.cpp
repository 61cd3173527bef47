#include "import.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "archives/public_var.hpp"
#include "archives/tensor_source.hpp"
#include "archives/weights_file.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/progress.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::data {
namespace {

using archives::TensorSource;
using base::UserError;
using tokenizer::Vqvae;
using tokenizer::VqvaeConfig;

void import_var(const TensorSource& source, const ImportOptions& options, const std::string& sha256) {
  const scaling::VarShape shape = archives::recognise_var(source, {.scales = options.scales, .heads = options.heads});
  archives::check_buffers(source, shape);
  const std::string fingerprint = archives::write_weights(
      options.out, shape, {{"source", source.where()}, {"source_sha256", sha256}},
      [&](const scaling::StateEntry& entry, float* out) { std::ranges::copy(source.read_float(entry.name), out); });
  fmt::print("{}: VAR of depth {}, width {}, {} heads, {} classes, {} codes, sides {}{}{}\nfingerprint {}\n",
             options.out.string(), shape.depth, shape.width, shape.heads, shape.classes, shape.tokens.vocabulary,
             shape.tokens.scales.words(), shape.shared_adaln ? ", shared AdaLN" : "",
             shape.attn_l2_norm ? "" : ", no q/k norm", fingerprint);
}

// --- the tokenizer -------------------------------------------------------------------------------
int64_t first_size(const TensorSource& source, const std::string& name) {
  const auto& shape = source.at(name).shape;
  if (shape.empty() || shape[0] < 1)
    throw UserError("{}: {} has shape [{}], expected a size", source.where(), name, fmt::join(shape, ", "));
  return shape[0];
}

// So many of NAME.0.REST, NAME.1.REST, ... are there.
int64_t count_of(const TensorSource& source, const std::string& name, const std::string& rest) {
  constexpr int64_t kMost = 4096;
  int64_t count = 0;
  while (count < kMost && source.find(fmt::format("{}{}{}", name, count, rest))) ++count;
  return count;
}

std::vector<int64_t> tokenizer_scales(const TensorSource& source, const ImportOptions& options, int64_t maps) {
  if (!options.scales.empty()) return options.scales;
  if (source.scales()) return *source.scales();
  std::vector<std::vector<int64_t>> fitting;
  for (const std::vector<int64_t>& sides : archives::published_scales())
    if (maps == 0 || static_cast<int64_t>(sides.size()) == maps) fitting.push_back(sides);
  if (fitting.empty())
    throw UserError("{}: nothing tells the sides of its {} maps; give them by --scales, as in 1,2,3,4", source.where(),
                    maps);
  throw UserError("{}: its maps may have the sides {} or {}; say which by --scales {} or --scales {}", source.where(),
                  fmt::join(fitting.front(), ","), fmt::join(fitting.back(), ","), fmt::join(fitting.front(), ","),
                  fmt::join(fitting.back(), ","));
}

VqvaeConfig recognise_tokenizer(const TensorSource& source, const ImportOptions& options) {
  constexpr const char* kHits = "quantize.ema_vocab_hit_SV";
  VqvaeConfig config;
  config.channels = first_size(source, "encoder.conv_in.weight");
  const int64_t levels = count_of(source, "encoder.down.", ".block.0.conv1.weight");
  config.channel_mult.clear();
  for (int64_t i = 0; i < levels; ++i) {
    const std::string name = fmt::format("encoder.down.{}.block.0.conv1.weight", i);
    const int64_t channels = first_size(source, name);
    if (channels % config.channels != 0)
      throw UserError("{}: {} has {} channels, no multiple of the {} of encoder.conv_in", source.where(), name,
                      channels, config.channels);
    config.channel_mult.push_back(channels / config.channels);
  }
  config.blocks = count_of(source, "encoder.down.0.block.", ".conv1.weight");
  config.code_width = first_size(source, "quant_conv.weight");
  config.vocabulary = first_size(source, "quantize.embedding.weight");
  config.phis = count_of(source, "quantize.quant_resi.qresi_ls.", ".weight");
  if (config.phis == 0) throw UserError("{}: no key quantize.quant_resi.qresi_ls.0.weight", source.where());
  if (levels == 0) throw UserError("{}: no key encoder.down.0.block.0.conv1.weight", source.where());
  const bool has_hits = source.find(kHits) != nullptr;
  config.scales = tokenizer_scales(source, options, has_hits ? first_size(source, kHits) : 0);
  try {
    config.image_side = scaling::ScaleList(config.scales).last_side() << (levels - 1);
    config.check();
  } catch (const UserError& error) {
    throw UserError("{}: {}", source.where(), error.what());
  }
  return config;
}

void import_tokenizer(const TensorSource& source, const ImportOptions& options, const std::string& sha256) {
  Vqvae vqvae(recognise_tokenizer(source, options));
  const std::string hits = vqvae.state().back().name;
  std::vector<scaling::StateEntry> expected;
  for (const auto& [name, tensor] : vqvae.parameters()) expected.push_back({name, tensor.sizes().vec()});
  if (const std::string sentence = archives::difference(source, expected, {hits}); !sentence.empty())
    throw UserError(sentence);
  at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : vqvae.state()) {
    if (!source.find(name)) continue;  // the counts, which may be missing
    const std::vector<float> values = source.read_float(name);
    // Counts of another list of scales say nothing of this one.
    if (static_cast<int64_t>(values.size()) != tensor.numel()) continue;
    std::memcpy(tensor.mutable_data_ptr<float>(), values.data(), values.size() * sizeof(float));
  }
  vqvae.save(options.out, fmt::format("imported from {}, SHA-256 {}", source.where(), sha256));
  const VqvaeConfig& config = vqvae.config();
  fmt::print("{}: tokenizer of {}x{} pixels, {} codes of width {}, sides {}\nfingerprint {}\n", options.out.string(),
             config.image_side, config.image_side, config.vocabulary, config.code_width, fmt::join(config.scales, ","),
             vqvae.fingerprint());
}

}  // namespace

void import_weights(const ImportOptions& options) {
  if (options.out.extension() != ".safetensors")
    throw UserError("--out {}: expected a name that ends in .safetensors", options.out.string());
  const auto part = options.part == "var"   ? archives::Part::kVar
                    : options.part == "vae" ? archives::Part::kTokenizer
                                            : archives::Part::kWhicheverIsThere;
  const TensorSource source = TensorSource::open(options.file, part);
  if (options.out.has_parent_path()) base::require_writable_folder(options.out.parent_path());
  const std::string sha256 = base::sha256_of_file(options.file);
  if (source.part() == archives::Part::kVar) return import_var(source, options, sha256);
  if (options.heads != 0) throw UserError("--heads {}: {} is a tokenizer", options.heads, source.where());
  import_tokenizer(source, options, sha256);
}

}  // namespace varscale::data
