#include "archives/pickle/node.hpp"
#include "base/error.hpp"

namespace varscale::archives {

Pickle::Pickle() = default;
Pickle::Pickle(Pickle&&) noexcept = default;
Pickle& Pickle::operator=(Pickle&&) noexcept = default;
Pickle::~Pickle() = default;

int64_t PthTensor::numel() const noexcept {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

bool PthTensor::contiguous() const noexcept {
  int64_t expected = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

PthValue::Kind PthValue::kind() const { return static_cast<Kind>(pickle_->nodes_[node_].kind); }
std::string_view PthValue::kind_name() const { return kNames[static_cast<size_t>(kind())]; }

bool PthValue::boolean() const {
  VARSCALE_CHECK(kind() == Kind::kBool, "{} is no bool", kind_name());
  return pickle_->nodes_[node_].integer != 0;
}

int64_t PthValue::integer() const {
  VARSCALE_CHECK(kind() == Kind::kInt, "{} is no integer", kind_name());
  return pickle_->nodes_[node_].integer;
}

double PthValue::real() const {
  VARSCALE_CHECK(kind() == Kind::kFloat, "{} is no number", kind_name());
  return pickle_->nodes_[node_].real;
}

std::string_view PthValue::text() const {
  VARSCALE_CHECK(kind() == Kind::kText || kind() == Kind::kBytes, "{} is no text", kind_name());
  return pickle_->nodes_[node_].text;
}

const PthTensor& PthValue::tensor() const {
  VARSCALE_CHECK(kind() == Kind::kTensor, "{} is no tensor", kind_name());
  return pickle_->tensors_[static_cast<size_t>(pickle_->nodes_[node_].integer)];
}

size_t PthValue::size() const {
  const size_t count = pickle_->nodes_[node_].items.size();
  return kind() == Kind::kDict ? count / 2 : count;
}

PthValue PthValue::item(size_t i) const {
  const auto& items = pickle_->nodes_[node_].items;
  return {pickle_, items.at(kind() == Kind::kDict ? 2 * i + 1 : i)};
}

PthValue PthValue::key(size_t i) const {
  VARSCALE_CHECK(kind() == Kind::kDict, "{} has no keys", kind_name());
  return {pickle_, pickle_->nodes_[node_].items.at(2 * i)};
}

std::optional<PthValue> PthValue::find(std::string_view wanted) const {
  if (kind() != Kind::kDict) return std::nullopt;
  for (size_t i = 0; i < size(); ++i) {
    const PthValue each = key(i);
    if (each.kind() == Kind::kText && each.text() == wanted) return item(i);
  }
  return std::nullopt;
}

}  // namespace varscale::archives
