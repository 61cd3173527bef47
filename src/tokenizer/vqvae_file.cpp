#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "base/error.hpp"
#include "base/file.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::tokenizer {

using base::UserError;

namespace {

constexpr const char* kFormat = "varscale.tokenizer.1";

VqvaeConfig read_stored_config(const base::SafetensorsFile& file) {
  const auto& metadata = file.metadata();
  const std::string path = file.path().string();
  const auto format = metadata.find("format");
  if (format == metadata.end() || !metadata.contains("config")) {
    if (file.contains("quantize.embedding.weight") && file.contains("encoder.conv_in.weight"))
      return {};
    throw UserError(
        "{}: not a tokenizer; expected a file written by var_tokenizer train, or the public "
        "tokenizer's tensors under their own names",
        path);
  }
  if (format->second != kFormat) {
    throw UserError("{}: format {}, expected {}", path, format->second, kFormat);
  }
  const auto json = nlohmann::ordered_json::parse(metadata.find("config")->second, nullptr, false);
  if (!json.is_object()) throw UserError("{}: the configuration inside is not JSON", path);
  const base::Document document = base::Document::from_json(json, path);
  base::Faults faults;
  auto config = base::read_config<VqvaeConfig>(document.root(), faults);
  faults.refuse_unread(document);
  faults.throw_if_any();
  return config;
}

}  // namespace

std::string Vqvae::fingerprint() const {
  return base::sha256_hex(base::dump_config(config_).dump() + nn::fingerprint(parameters_));
}

void Vqvae::save(const std::filesystem::path& path, const std::string& training) const {
  nn::save_tensors(path, state(),
                   {{"format", kFormat},
                    {"config", base::dump_config(config_).dump()},
                    {"fingerprint", fingerprint()},
                    {"training", training}});
}

std::string stored_training(const std::filesystem::path& path) {
  const base::SafetensorsFile file(path);
  const auto entry = file.metadata().find("training");
  return entry == file.metadata().end() ? std::string() : entry->second;
}

Vqvae Vqvae::load(const std::filesystem::path& path) {
  const base::SafetensorsFile file(path);
  Vqvae vqvae(read_stored_config(file));
  nn::NamedTensors targets = vqvae.parameters();
  // The buffer may be missing, or belong to another list of scales: then it starts from zero.
  const std::string hits = vqvae.state().back().name;
  if (file.contains(hits)) {
    const bool fits = file.at(hits).shape == vqvae.hits_SV_.sizes().vec();
    targets.push_back({hits, fits ? vqvae.hits_SV_ : at::empty(file.at(hits).shape)});
  }
  nn::load_tensors(file, targets);
  const auto stored = file.metadata().find("fingerprint");
  if (stored != file.metadata().end() && stored->second != vqvae.fingerprint()) {
    throw UserError(
        "{}: the weights do not belong to the fingerprint stored with them; the file was changed",
        path.string());
  }
  return vqvae;
}

}  // namespace varscale::tokenizer
