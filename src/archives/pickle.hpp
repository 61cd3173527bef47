// The part of Python's pickle that torch.save writes, read as data: nothing is ever looked up or called.
//
//   const Pickle pickle = unpickle(bytes, "w.pth: data.pkl");
//   pickle.value().find("trainer").value().find("epoch").value().integer();
//
// Known    Protocol 2, and these globals alone: collections.OrderedDict, set, torch.Size, torch.device, torch's
//          dtypes, torch.<Type>Storage as the type of a stored tensor, torch._utils._rebuild_tensor,
//          _rebuild_tensor_v2 and _rebuild_parameter, _codecs.encode (bytes under protocol 2).
// Left out The state of an OrderedDict (torch's _metadata), backward hooks and requires_grad.
// Limits   PickleLimits; integers of more than 64 bits, values that contain themselves, and keys given twice are
//          refused. Tensors lie inside their storage.
// Errors   UserError "<where>, byte N: sentence"; an unknown global is named.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/safetensors.hpp"

namespace varscale::archives {

struct PthTensor {
  base::DType dtype;
  std::vector<int64_t> shape, strides;  // in elements; no stride is negative
  int64_t offset = 0;                   // in elements, from the begin of the storage
  std::string storage;                  // its key
  int64_t numel() const noexcept;
  uint64_t bytes() const noexcept { return static_cast<uint64_t>(numel()) * base::dtype_size(dtype); }
  bool contiguous() const noexcept;
};

struct PthStorage {
  base::DType dtype;
  int64_t numel = 0;
};

class Pickle;

// One value of a pickle; a handle, which lives as long as the pickle.
class PthValue {
 public:
  enum class Kind { kNone, kBool, kInt, kFloat, kText, kBytes, kList, kTuple, kSet, kDict, kTensor };
  Kind kind() const;
  std::string_view kind_name() const;  // "a list"

  // Each for values of its kind (VARSCALE_CHECK).
  bool boolean() const;
  int64_t integer() const;
  double real() const;
  std::string_view text() const;  // UTF-8; also the bytes of kBytes; dtypes and devices are texts
  const PthTensor& tensor() const;
  size_t size() const;                                       // of a list, tuple, set or dict
  PthValue item(size_t i) const;                             // of these; of a dict the value
  PthValue key(size_t i) const;                              // of a dict, in its order
  std::optional<PthValue> find(std::string_view key) const;  // of a dict; nothing where it is none

 private:
  friend class Pickle;
  PthValue(const Pickle* pickle, uint32_t node) : pickle_(pickle), node_(node) {}
  const Pickle* pickle_;
  uint32_t node_;
};

struct PickleLimits {
  size_t operations = 8'000'000;
  size_t values = 2'000'000;
  int64_t depth = 64;              // containers within containers
  uint64_t expanded = 16'000'000;  // values, counted at each place where they are seen
  int64_t repeated = 1 << 20;      // elements of a tensor that has more of them than its storage (stride 0)
};

class Pickle {
 public:
  PthValue value() const { return {this, root_}; }
  // Those that tensors use, by key.
  const std::map<std::string, PthStorage, std::less<>>& storages() const noexcept { return storages_; }
  size_t end() const noexcept { return end_; }  // one past its last byte

 private:
  friend class PthValue;
  friend class Unpickler;
  struct Node;
  std::vector<Node> nodes_;
  std::vector<PthTensor> tensors_;
  std::map<std::string, PthStorage, std::less<>> storages_;
  uint32_t root_ = 0;
  size_t end_ = 0;

 public:
  Pickle();
  Pickle(Pickle&&) noexcept;
  Pickle& operator=(Pickle&&) noexcept;
  ~Pickle();
};

// Reads up to the end of the first pickle in `bytes`.
Pickle unpickle(std::string_view bytes, const std::string& where, const PickleLimits& limits = {});

}  // namespace varscale::archives
