#include "archives/tensor_source.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "archives/printable.hpp"
#include "base/config.hpp"
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
  TensorSource source;
  source.where_ = path.string();
  source.part_ = part;
  // By what is in it: names are often wrong.
  char head[16] = {};
  {
    const base::MappedFile file(path);
    if (file.size() > sizeof head) std::memcpy(head, file.data(), sizeof head);
  }
  if (std::memcmp(head + 8, "{", 1) == 0 && std::memcmp(head, "PK", 2) != 0)
    source.open_safetensors(path);
  else
    source.open_pth(path);

  bool var = false, tokenizer = false;
  for (const auto& [name, tensor] : source.tensors_) {
    var |= name.starts_with("blocks.") || name.starts_with("word_embed.");
    tokenizer |= name.starts_with("encoder.") || name.starts_with("quantize.");
  }
  if (var == tokenizer)
    throw UserError(
        "{}: neither a public VAR (word_embed.weight, blocks.0...) nor a public tokenizer (encoder..., "
        "quantize...), by its {} keys",
        source.where_, source.tensors_.size());
  const Part found = var ? Part::kVar : Part::kTokenizer;
  if (source.part_ != Part::kWhicheverIsThere && source.part_ != found)
    throw UserError("{}: holds {}, asked for is {}", source.where_, words_of(found), words_of(source.part_));
  source.part_ = found;
  return source;
}

void TensorSource::open_pth(const std::filesystem::path& path) {
  pth_ = std::make_unique<PthFile>(path);
  PthValue dict = pth_->root();
  if (dict.kind() != PthValue::Kind::kDict)
    throw UserError("{}: holds {}, expected a dict of tensors", where_, dict.kind_name());
  if (const auto trainer = dict.find("trainer"); trainer && trainer->kind() == PthValue::Kind::kDict) {
    const auto var = trainer->find(kVarKey), tokenizer = trainer->find(kTokenizerKey);
    part_ = chosen(part_, var.has_value(), tokenizer.has_value(), where_);
    dict = part_ == Part::kVar ? *var : *tokenizer;
    where_ += fmt::format(": trainer.{}", part_ == Part::kVar ? kVarKey : kTokenizerKey);
    if (dict.kind() != PthValue::Kind::kDict)
      throw UserError("{} is {}, expected a dict of tensors", where_, dict.kind_name());
    const auto config = trainer->find("config");
    const auto sides = config ? config->find("patch_nums") : std::nullopt;
    if (sides && (sides->kind() == PthValue::Kind::kTuple || sides->kind() == PthValue::Kind::kList)) {
      scales_.emplace();
      for (size_t i = 0; i < sides->size(); ++i) {
        if (sides->item(i).kind() != PthValue::Kind::kInt)
          throw UserError("{}: trainer.config.patch_nums has {}, expected integers", path.string(),
                          sides->item(i).kind_name());
        scales_->push_back(sides->item(i).integer());
      }
    }
  }
  for (size_t i = 0; i < dict.size(); ++i) {
    const PthValue key = dict.key(i), value = dict.item(i);
    if (key.kind() != PthValue::Kind::kText || value.kind() != PthValue::Kind::kTensor)
      throw UserError("{}: key {} is {}, expected a tensor under a name", where_,
                      key.kind() == PthValue::Kind::kText ? "'" + printable(key.text()) + "'" : std::to_string(i),
                      value.kind_name());
    const PthTensor& tensor = value.tensor();
    tensors_.emplace(key.text(), Tensor{tensor.dtype, tensor.shape});
    pth_tensors_.emplace(key.text(), &tensor);
  }
}

void TensorSource::open_safetensors(const std::filesystem::path& path) {
  safetensors_ = std::make_unique<base::SafetensorsFile>(path);
  if (const auto format = safetensors_->metadata().find("format");
      format != safetensors_->metadata().end() && format->second.starts_with("varscale."))
    throw UserError("{}: a file of ours ({}) already, which needs no import", where_, printable(format->second));
  const std::string var = fmt::format("trainer.{}.", kVarKey), tokenizer = fmt::format("trainer.{}.", kTokenizerKey);
  const auto has = [&](const std::string& prefix) {
    const auto found = safetensors_->tensors().lower_bound(prefix);
    return found != safetensors_->tensors().end() && found->first.starts_with(prefix);
  };
  if (has("trainer.")) {
    part_ = chosen(part_, has(var), has(tokenizer), where_);
    prefix_ = part_ == Part::kVar ? var : tokenizer;
    where_ += ": " + prefix_.substr(0, prefix_.size() - 1);
  }
  for (const auto& [name, view] : safetensors_->tensors())
    if (name.starts_with(prefix_)) tensors_.emplace(name.substr(prefix_.size()), Tensor{view.dtype, view.shape});
}

const TensorSource::Tensor* TensorSource::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

const TensorSource::Tensor& TensorSource::at(std::string_view name) const {
  if (const Tensor* tensor = find(name)) return *tensor;
  throw UserError("{}: no key {} among {}", where_, name, tensors_.size());
}

std::vector<std::byte> TensorSource::read(std::string_view name) const {
  if (safetensors_) {
    const base::TensorView& view = safetensors_->at(prefix_ + std::string(name));
    return {view.data, view.data + view.bytes};
  }
  const PthTensor& tensor = *pth_tensors_.find(name)->second;
  std::vector<std::byte> bytes(tensor.bytes());
  pth_->read(tensor, bytes.data());
  return bytes;
}

std::vector<float> TensorSource::read_float(std::string_view name) const {
  const DType dtype = at(name).dtype;
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16)
    throw UserError("{}: {} is {}, expected F32, F16 or BF16", where_, name, base::dtype_name(dtype));
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
    throw UserError("{}: {} is {}, expected I64", where_, name, base::dtype_name(at(name).dtype));
  const std::vector<std::byte> bytes = read(name);
  std::vector<int64_t> values(bytes.size() / sizeof(int64_t));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace varscale::archives
