#include "archives/tensor_source.hpp"

#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "archives/printable.hpp"
#include "base/error.hpp"

namespace varscale::archives {

using base::DType;
using base::UserError;

namespace {

constexpr const char* kVarKey = "var_wo_ddp";
constexpr const char* kTokenizerKey = "vae_local";

const char* words_of(Part part) { return part == Part::kVar ? "a VAR" : "a tokenizer"; }

// Which of a checkpoint's parts is meant.
Part chosen(Part asked, bool has_var, bool has_tokenizer, const std::string& path) {
  if (!has_var && !has_tokenizer)
    throw UserError("{}: a checkpoint without trainer.{} and trainer.{}", path, kVarKey, kTokenizerKey);
  if (asked == Part::kWhicheverIsThere) {
    if (has_var && has_tokenizer)
      throw UserError("{}: a checkpoint with a VAR and a tokenizer; choose by --part var or --part vae", path);
    return has_var ? Part::kVar : Part::kTokenizer;
  }
  if (!(asked == Part::kVar ? has_var : has_tokenizer))
    throw UserError("{}: a checkpoint without {}", path, words_of(asked));
  return asked;
}

float from_half(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16, exponent = (bits >> 10) & 0x1f;
  const uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float tiny = static_cast<float>(fraction) * 0x1p-24f;  // exact
  return sign ? -tiny : tiny;
}

}  // namespace

TensorSource TensorSource::open(const std::filesystem::path& path, Part part) {
  TensorSource source(path, part);
  if (source.file_.pth())
    source.take_from_pth();
  else
    source.take_from_safetensors();

  bool var = false, tokenizer = false;
  for (const auto& [name, tensor] : source.tensors()) {
    var |= name.starts_with("blocks.") || name.starts_with("word_embed.");
    tokenizer |= name.starts_with("encoder.") || name.starts_with("quantize.");
  }
  if (var == tokenizer)
    throw UserError(
        "{}: neither a public VAR (word_embed.weight, blocks.0...) nor a public tokenizer (encoder..., "
        "quantize...), by its {} keys",
        source.where(), source.tensors().size());
  const Part found = var ? Part::kVar : Part::kTokenizer;
  if (source.part_ != Part::kWhicheverIsThere && source.part_ != found)
    throw UserError("{}: holds {}, asked for is {}", source.where(), words_of(found), words_of(source.part_));
  source.part_ = found;
  return source;
}

void TensorSource::take_from_pth() {
  const PthValue root = file_.pth()->root();
  const auto trainer = root.kind() == PthValue::Kind::kDict ? root.find("trainer") : std::nullopt;
  if (!trainer || trainer->kind() != PthValue::Kind::kDict) return file_.take(root);
  const std::string path = where();
  const auto var = trainer->find(kVarKey), tokenizer = trainer->find(kTokenizerKey);
  part_ = chosen(part_, var.has_value(), tokenizer.has_value(), path);
  file_.take(part_ == Part::kVar ? *var : *tokenizer,
             fmt::format("trainer.{}", part_ == Part::kVar ? kVarKey : kTokenizerKey));
  const auto config = trainer->find("config");
  const auto sides = config ? config->find("patch_nums") : std::nullopt;
  if (!sides || (sides->kind() != PthValue::Kind::kTuple && sides->kind() != PthValue::Kind::kList)) return;
  scales_.emplace();
  for (size_t i = 0; i < sides->size(); ++i) {
    if (sides->item(i).kind() != PthValue::Kind::kInt)
      throw UserError("{}: trainer.config.patch_nums has {}, expected integers", path, sides->item(i).kind_name());
    scales_->push_back(sides->item(i).integer());
  }
}

void TensorSource::take_from_safetensors() {
  const base::SafetensorsFile& file = *file_.safetensors();
  if (const auto format = file.metadata().find("format");
      format != file.metadata().end() && format->second.starts_with("varscale."))
    throw UserError("{}: a file of ours ({}) already, which needs no import", where(), printable(format->second));
  const std::string var = fmt::format("trainer.{}.", kVarKey), tokenizer = fmt::format("trainer.{}.", kTokenizerKey);
  const auto has = [&](const std::string& prefix) {
    const auto found = file.tensors().lower_bound(prefix);
    return found != file.tensors().end() && found->first.starts_with(prefix);
  };
  if (!has("trainer.")) return file_.take(std::string());
  part_ = chosen(part_, has(var), has(tokenizer), where());
  file_.take(part_ == Part::kVar ? var : tokenizer);
}

std::vector<std::byte> TensorSource::read(std::string_view name) const {
  std::vector<std::byte> bytes(file_.bytes(name));
  file_.read(name, bytes.data());
  return bytes;
}

std::vector<float> TensorSource::read_float(std::string_view name) const {
  const DType dtype = at(name).dtype;
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16)
    throw UserError("{}: {} is {}, expected F32, F16 or BF16", where(), name, base::dtype_name(dtype));
  const std::vector<std::byte> bytes = read(name);
  std::vector<float> values(bytes.size() / base::dtype_size(dtype));
  if (dtype == DType::kF32) {
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t half;
    std::memcpy(&half, bytes.data() + i * sizeof half, sizeof half);
    values[i] = dtype == DType::kF16 ? from_half(half) : std::bit_cast<float>(uint32_t{half} << 16);
  }
  return values;
}

std::vector<int64_t> TensorSource::read_integers(std::string_view name) const {
  if (at(name).dtype != DType::kI64)
    throw UserError("{}: {} is {}, expected I64", where(), name, base::dtype_name(at(name).dtype));
  const std::vector<std::byte> bytes = read(name);
  std::vector<int64_t> values(bytes.size() / sizeof(int64_t));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace varscale::archives
