#include "export.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "archives/pth_file.hpp"
#include "archives/public_var.hpp"
#include "archives/weights_file.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/progress.hpp"
#include "checkpoint/checkpoint.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::data {
namespace {

using archives::PthWriter;
using base::DType;
using base::UserError;
using scaling::StateEntry;
using scaling::StateKind;
using scaling::VarShape;

struct Model {
  VarShape shape;
  archives::ReadParameter read;
  std::map<std::string, std::string> origin;
};

// --- a run ---------------------------------------------------------------------------------------
std::vector<int64_t> sides_of(const records::Facts& facts, const ExportOptions& options, int64_t tokens, int64_t maps) {
  if (!options.scales.empty()) return options.scales;
  std::vector<int64_t> sides;
  if (const auto said = facts.find("scales");
      said != facts.end() && std::holds_alternative<std::string>(said->second)) {
    const std::string& list = std::get<std::string>(said->second);
    for (const char *at = list.data(), *end = at + list.size(); at < end; ++at) {
      int64_t side = 0;
      const auto [behind, error] = std::from_chars(at, end, side);
      if (error != std::errc()) return {};
      sides.push_back(side);
      at = behind;
    }
    return sides;
  }
  for (const std::vector<int64_t>& published : archives::published_scales())
    if (static_cast<int64_t>(published.size()) == maps && scaling::ScaleList(published).tokens() == tokens)
      return published;
  throw UserError("{}: the run does not say the sides of its {} maps; give them by --scales, as in 1,2,3,4",
                  options.from.string(), maps);
}

Model model_of_run(const ExportOptions& options) {
  const std::filesystem::path folder = options.from / "checkpoints";
  if (!std::filesystem::is_directory(folder)) {
    throw UserError("{}: has no checkpoints; expected the folder of a run, <sweep>/runs/<id>", options.from.string());
  }
  const checkpoint::CheckpointFolder checkpoints(folder, /*keep=*/1);
  const std::vector<int64_t> steps = checkpoints.steps();
  if (steps.empty()) throw UserError("{}: the run has no checkpoint yet", options.from.string());
  const int64_t step = options.step > 0 ? options.step : steps.back();
  if (std::find(steps.begin(), steps.end(), step) == steps.end()) {
    throw UserError("{}: no checkpoint of step {}; there are those of {}", options.from.string(), step,
                    fmt::join(steps, ", "));
  }
  auto tensors = std::make_shared<std::map<std::string, at::Tensor>>();
  constexpr std::string_view kPrefix = "param.";
  for (const nn::NamedTensor& named : checkpoints.tensors(step))
    if (named.name.starts_with(kPrefix)) tensors->emplace(named.name.substr(kPrefix.size()), named.tensor.contiguous());
  const records::Facts facts = checkpoints.rows(step).facts;
  const auto size = [&](const std::string& name, int64_t axis) {
    const auto found = tensors->find(name);
    if (found == tensors->end() || found->second.dim() <= axis)
      throw UserError("{}: {} is not in its checkpoint, or of another shape", options.from.string(), name);
    return found->second.size(axis);
  };
  const auto heads = facts.find("heads");
  if (heads == facts.end() || !std::holds_alternative<int64_t>(heads->second))
    throw UserError("{}: the run does not say its heads", options.from.string());
  Model model;
  VarShape& shape = model.shape;
  while (tensors->contains(fmt::format("blocks.{}.attn.q_bias", shape.depth))) ++shape.depth;
  shape.width = size("pos_1LC", 2);
  shape.heads = std::get<int64_t>(heads->second);
  shape.mlp_ratio = size("blocks.0.ffn.fc1.weight", 0) / shape.width;
  shape.classes = size("class_emb.weight", 0) - 1;
  shape.shared_adaln = tensors->contains("shared_ada_lin.1.weight");
  shape.attn_l2_norm = tensors->contains("blocks.0.attn.scale_mul_1H11");
  shape.tokens = {size("head.weight", 0), size("word_embed.weight", 1),
                  scaling::ScaleList(sides_of(facts, options, size("pos_1LC", 1), size("lvl_embed.weight", 0)))};
  const std::vector<StateEntry> parameters = parameters_of(shape);
  for (const StateEntry& entry : parameters) {
    const auto found = tensors->find(entry.name);
    if (found == tensors->end() || found->second.sizes() != entry.shape)
      throw UserError("{}: {} of its checkpoint is not of shape [{}]", options.from.string(), entry.name,
                      fmt::join(entry.shape, ", "));
  }
  if (tensors->size() != parameters.size())
    throw UserError("{}: its checkpoint has {} weights, its model {}", options.from.string(), tensors->size(),
                    parameters.size());
  model.read = [tensors](const StateEntry& entry, float* out) {
    const at::Tensor& tensor = tensors->at(entry.name);
    std::memcpy(out, tensor.const_data_ptr<float>(), tensor.nbytes());
  };
  model.origin = {{"run_id", checkpoints.manifest(step)["run_id"].get<std::string>()}, {"step", std::to_string(step)}};
  return model;
}

Model model_of_file(const std::filesystem::path& path) {
  const auto file = std::make_shared<archives::WeightsFile>(path);
  file->verify();
  Model model{file->shape(), {}, {}};
  for (const char* key : {"run_id", "step", "source", "source_sha256"})
    if (const auto found = file->metadata().find(key); found != file->metadata().end())
      model.origin[key] = found->second;
  model.read = [file](const StateEntry& entry, float* out) { std::ranges::copy(file->values(entry.name), out); };
  return model;
}

// --- .pth ----------------------------------------------------------------------------------------
void write_pth(const std::filesystem::path& out, const Model& model) {
  const std::vector<StateEntry> state = public_state(model.shape);
  std::vector<PthWriter::Tensor> tensors;
  for (const StateEntry& entry : state)
    tensors.push_back({entry.name, entry.kind == StateKind::kLevels ? DType::kI64 : DType::kF32, entry.shape});
  PthWriter writer(out, std::move(tensors));
  const std::vector<int64_t> levels = token_levels(model.shape.tokens.scales);
  for (const StateEntry& entry : state) {
    if (entry.kind == StateKind::kLevels) {
      writer.write(levels.data(), levels.size() * sizeof(int64_t));
    } else if (entry.kind == StateKind::kMask) {
      std::vector<float> row(levels.size());
      for (const int64_t level : levels) {
        for (size_t j = 0; j < row.size(); ++j)
          row[j] = level < levels[j] ? -std::numeric_limits<float>::infinity() : 0.0f;
        writer.write(row.data(), row.size() * sizeof(float));
      }
    } else {
      std::vector<float> values(static_cast<size_t>(entry.numel()), 0.0f);
      if (entry.kind == StateKind::kParameter) model.read(entry, values.data());
      writer.write(values.data(), values.size() * sizeof(float));
    }
  }
  writer.commit();
}

void write_pth(const std::filesystem::path& out, const tokenizer::Vqvae& vqvae) {
  // The counts stand before the first tensor of the quantiser.
  nn::NamedTensors state = vqvae.state();
  const auto first =
      std::ranges::find_if(state, [](const nn::NamedTensor& named) { return named.name.starts_with("quantize."); });
  std::rotate(first, state.end() - 1, state.end());
  std::vector<PthWriter::Tensor> tensors;
  for (const auto& [name, tensor] : state) tensors.push_back({name, DType::kF32, tensor.sizes().vec()});
  PthWriter writer(out, std::move(tensors));
  for (const auto& [name, tensor] : state) {
    const at::Tensor values = tensor.detach().contiguous();
    writer.write(values.const_data_ptr<float>(), values.nbytes());
  }
  writer.commit();
}

bool is_tokenizer(const std::filesystem::path& path) {
  const base::SafetensorsFile file(path);
  return file.contains("quantize.embedding.weight");
}

}  // namespace

void export_weights(const ExportOptions& options) {
  std::string format = options.format;
  if (format.empty()) format = options.out.extension() == ".pth" ? "pth" : "safetensors";
  const bool is_run = std::filesystem::is_directory(options.from);
  if (!is_run && options.step != 0) throw UserError("--step {}: {} is no run", options.step, options.from.string());
  if (!is_run && !options.scales.empty()) throw UserError("--scales: {} says its own", options.from.string());
  std::error_code error;
  if (std::filesystem::equivalent(options.from, options.out, error))
    throw UserError("--out {}: is the file that is read", options.out.string());
  std::string what;
  const auto prepare = [&] {
    if (options.out.has_parent_path()) base::require_writable_folder(options.out.parent_path());
  };
  if (!is_run && is_tokenizer(options.from)) {
    if (format != "pth")
      throw UserError("{}: a tokenizer is a safetensors file already; give --format pth", options.from.string());
    const tokenizer::Vqvae vqvae = tokenizer::Vqvae::load(options.from);
    prepare();
    write_pth(options.out, vqvae);
    what = "tokenizer " + vqvae.fingerprint();
    const tokenizer::VqvaeConfig &config = vqvae.config(), standard;
    if (config.groups != standard.groups || config.phi_ratio != standard.phi_ratio ||
        config.unit_norm != standard.unit_norm)
      fmt::print(
          "note: a state dict does not say groups {}, phi_ratio {}, unit_norm {}; the public class has {}, {}, {} "
          "unless told\n",
          config.groups, config.phi_ratio, config.unit_norm, standard.groups, standard.phi_ratio, standard.unit_norm);
  } else {
    const Model model = is_run ? model_of_run(options) : model_of_file(options.from);
    prepare();
    if (format == "pth")
      write_pth(options.out, model);
    else
      archives::write_weights(options.out, model.shape, model.origin, model.read);
    const auto step = model.origin.find("step");
    what = step == model.origin.end() ? "weights" : "weights of step " + step->second;
  }
  fmt::print("{}: {}, {}\n", options.out.string(), what,
             base::format_bytes(static_cast<double>(std::filesystem::file_size(options.out))));
}

}  // namespace varscale::data
