#include "archives/weights_file.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/config.hpp"
#include "base/error.hpp"

namespace varscale::archives {

using base::UserError;
using scaling::StateEntry;
using scaling::VarShape;

namespace {

// VarShape as the metadata have it.
struct StoredModel {
  int64_t depth = 0, width = 0, heads = 0, mlp_ratio = 0, classes = 0, vocabulary = 0, code_width = 0;
  std::vector<int64_t> scales;
  bool shared_adaln = false, attn_l2_norm = true;

  template <class Visitor>
  void visit(Visitor& v) {
    const auto positive = base::Range<int64_t>::at_least(1);
    v.field("depth", depth, "blocks", positive);
    v.field("width", width, "channels", positive);
    v.field("heads", heads, "attention heads", positive);
    v.field("mlp_ratio", mlp_ratio, "hidden width over the width", positive);
    v.field("classes", classes, "without the null class", positive);
    v.field("vocabulary", vocabulary, "codes", positive);
    v.field("code_width", code_width, "numbers a code", positive);
    v.field("scales", scales, "sides of the token maps", positive);
    v.field("shared_adaln", shared_adaln, "one AdaLN projection for all blocks");
    v.field("attn_l2_norm", attn_l2_norm, "unit-norm q and k");
  }
};

StoredModel stored_of(const VarShape& shape) {
  return {.depth = shape.depth,
          .width = shape.width,
          .heads = shape.heads,
          .mlp_ratio = shape.mlp_ratio,
          .classes = shape.classes,
          .vocabulary = shape.tokens.vocabulary,
          .code_width = shape.tokens.code_width,
          .scales = shape.tokens.scales.sides(),
          .shared_adaln = shape.shared_adaln,
          .attn_l2_norm = shape.attn_l2_norm};
}

VarShape shape_of(const StoredModel& model) {
  VarShape shape;
  shape.depth = model.depth;
  shape.width = model.width;
  shape.heads = model.heads;
  shape.mlp_ratio = model.mlp_ratio;
  shape.classes = model.classes;
  shape.tokens = {model.vocabulary, model.code_width, scaling::ScaleList(model.scales)};
  shape.shared_adaln = model.shared_adaln;
  shape.attn_l2_norm = model.attn_l2_norm;
  shape.check();
  return shape;
}

std::string words_of(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Over what two files have in common that hold the same weights.
class Fingerprint {
 public:
  void add(const StateEntry& entry, const float* values) {
    const std::string head = entry.name + words_of(entry.shape);
    hash_.update(head.data(), head.size());
    hash_.update(values, static_cast<size_t>(entry.numel()) * sizeof *values);
  }
  std::string hex() { return hash_.hex(); }

 private:
  base::Sha256 hash_;
};

}  // namespace

WeightsFile::WeightsFile(const std::filesystem::path& path) : file_(path) {
  const auto& metadata = file_.metadata();
  const auto format = metadata.find("format"), model = metadata.find("model"), print = metadata.find("fingerprint");
  if (format == metadata.end() || format->second != kWeightsFormat || model == metadata.end() ||
      print == metadata.end())
    throw UserError("{}: not a file of weights; expected one that var_data import or var_data export has written",
                    path.string());
  const auto json = nlohmann::ordered_json::parse(model->second, nullptr, false);
  if (!json.is_object()) throw UserError("{}: its model is not JSON", path.string());
  const base::Document document = base::Document::from_json(json, path.string());
  base::Faults faults;
  const auto stored = base::read_config<StoredModel>(document.root(), faults);
  faults.refuse_unread(document);
  faults.throw_if_any();
  try {
    shape_ = shape_of(stored);
  } catch (const UserError& error) {
    throw UserError("{}: {}", path.string(), error.what());
  }
  fingerprint_ = print->second;
  const std::vector<StateEntry> parameters = parameters_of(shape_);
  for (const StateEntry& entry : parameters) {
    const base::TensorView& view = file_.at(entry.name);
    if (view.dtype != base::DType::kF32 || view.shape != entry.shape)
      throw UserError("{}: {} is {} of shape {}, its model has F32 of {}", path.string(), entry.name,
                      base::dtype_name(view.dtype), words_of(view.shape), words_of(entry.shape));
  }
  if (file_.tensors().size() != parameters.size())
    throw UserError("{}: has {} tensors, its model {}", path.string(), file_.tensors().size(), parameters.size());
}

std::span<const float> WeightsFile::values(std::string_view name) const {
  const base::TensorView& view = file_.at(name);
  return {reinterpret_cast<const float*>(view.data), static_cast<size_t>(view.numel())};
}

void WeightsFile::check_fits(const VarShape& shape) const {
  const std::vector<StateEntry> wanted = parameters_of(shape);
  for (const StateEntry& entry : wanted) {
    if (!file_.contains(entry.name))
      throw UserError("{}: has no {} (depth {}, expected {})", path().string(), entry.name, shape_.depth, shape.depth);
    const base::TensorView& view = file_.at(entry.name);
    if (view.shape != entry.shape)
      throw UserError("{}: {} has shape {}, expected {}", path().string(), entry.name, words_of(view.shape),
                      words_of(entry.shape));
  }
  for (const StateEntry& entry : parameters_of(shape_))
    if (std::ranges::find(wanted, entry.name, &StateEntry::name) == wanted.end())
      throw UserError("{}: has {}, which the model has not (depth {}, expected {})", path().string(), entry.name,
                      shape_.depth, shape.depth);
  // What no key shows: heads where q and k have no norm, and other sides with as many tokens.
  if (shape.heads != shape_.heads)
    throw UserError("{}: its model has {} heads, expected {}", path().string(), shape_.heads, shape.heads);
  if (!(shape.tokens.scales == shape_.tokens.scales))
    throw UserError("{}: its model has maps of the sides {}, expected {}", path().string(),
                    shape_.tokens.scales.words(), shape.tokens.scales.words());
}

void WeightsFile::verify() const {
  Fingerprint fingerprint;
  for (const StateEntry& entry : parameters_of(shape_)) fingerprint.add(entry, values(entry.name).data());
  if (fingerprint.hex() != fingerprint_)
    throw UserError("{}: the weights do not belong to the fingerprint stored with them; the file was changed",
                    path().string());
}

std::string write_weights(const std::filesystem::path& target, const VarShape& shape,
                          const std::map<std::string, std::string>& origin, const ReadParameter& read) {
  const std::vector<StateEntry> parameters = parameters_of(shape);
  Fingerprint fingerprint;
  base::SafetensorsWriter writer;
  for (const StateEntry& entry : parameters) {
    std::vector<float> values(static_cast<size_t>(entry.numel()));
    read(entry, values.data());
    fingerprint.add(entry, values.data());
    writer.add(entry.name, base::DType::kF32, entry.shape,
               [&read, &entry](void* out) { read(entry, static_cast<float*>(out)); });
  }
  const std::string print = fingerprint.hex();
  for (const auto& [key, value] : origin) writer.set_metadata(key, value);
  writer.set_metadata("format", kWeightsFormat);
  writer.set_metadata("model", base::dump_config(stored_of(shape)).dump());
  writer.set_metadata("fingerprint", print);
  writer.save(target);
  return print;
}

}  // namespace varscale::archives
