#include "archives/state_file.hpp"

#include <fmt/format.h>

#include <cstring>

#include "archives/printable.hpp"
#include "base/error.hpp"

namespace varscale::archives {

using base::UserError;

namespace {

constexpr const char* kUsualKeys[] = {"state_dict", "model_state_dict", "model"};

// By what is in it: names are often wrong.
bool is_safetensors(const std::filesystem::path& path) {
  const base::MappedFile file(path);
  constexpr size_t kLength = 8;  // of the header's length, before the header
  return file.size() > kLength && static_cast<char>(file.data()[kLength]) == '{' &&
         std::memcmp(file.data(), "PK", 2) != 0;
}

}  // namespace

StateFile::StateFile(const std::filesystem::path& path) : where_(path.string()) {
  if (is_safetensors(path))
    safetensors_ = std::make_unique<base::SafetensorsFile>(path);
  else
    pth_ = std::make_unique<PthFile>(path);
}

StateFile StateFile::open(const std::filesystem::path& path) {
  StateFile file(path);
  if (file.safetensors_) {
    file.take(std::string());
    return file;
  }
  const PthValue root = file.pth_->root();
  std::string_view found;
  for (const char* key : kUsualKeys) {
    const auto value = root.kind() == PthValue::Kind::kDict ? root.find(key) : std::nullopt;
    if (!value || value->kind() != PthValue::Kind::kDict) continue;
    if (!found.empty())
      throw UserError("{}: holds a dict under {} and one under {}, expected one state dict", file.where_, found, key);
    found = key;
  }
  if (found.empty())
    file.take(root);
  else
    file.take(*root.find(found), std::string(found));
  return file;
}

void StateFile::take(PthValue dict, const std::string& words) {
  VARSCALE_CHECK(pth_ && tensors_.empty(), "{}: take() of a dict that it does not have, or twice", where_);
  if (!words.empty()) where_ += ": " + words;
  if (dict.kind() != PthValue::Kind::kDict)
    throw UserError("{}{} {}, expected a dict of tensors", where_, words.empty() ? ": holds" : " is", dict.kind_name());
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

void StateFile::take(const std::string& prefix) {
  VARSCALE_CHECK(safetensors_ && tensors_.empty(), "{}: take() of a prefix that it does not have, or twice", where_);
  prefix_ = prefix;
  if (!prefix.empty()) where_ += ": " + prefix.substr(0, prefix.size() - 1);
  for (const auto& [name, view] : safetensors_->tensors())
    if (name.starts_with(prefix)) tensors_.emplace(name.substr(prefix.size()), Tensor{view.dtype, view.shape});
}

const StateFile::Tensor* StateFile::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

const StateFile::Tensor& StateFile::at(std::string_view name) const {
  if (const Tensor* tensor = find(name)) return *tensor;
  throw UserError("{}: no key {} among {}", where_, name, tensors_.size());
}

uint64_t StateFile::bytes(std::string_view name) const {
  at(name);
  return safetensors_ ? safetensors_->at(prefix_ + std::string(name)).bytes : pth_tensors_.find(name)->second->bytes();
}

void StateFile::read(std::string_view name, void* out) const {
  at(name);
  if (pth_) return pth_->read(*pth_tensors_.find(name)->second, out);
  const base::TensorView& view = safetensors_->at(prefix_ + std::string(name));
  if (view.bytes > 0) std::memcpy(out, view.data, view.bytes);
}

}  // namespace varscale::archives
