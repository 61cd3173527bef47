// Named tensors as other programs save them: a state dict in a .pth or a .safetensors file, told apart by content.
//
//   const StateFile file = StateFile::open("vgg16-397923af.pth");
//   const StateFile::Tensor& bias = file.at("features.0.bias");        // dtype and shape
//   std::vector<std::byte> bytes(file.bytes("features.0.bias"));
//   file.read("features.0.bias", bytes.data());                         // row-major
//
// Of a .pth nothing is ever run (pickle.hpp). Its tensors lie at the top, or as a whole under one of the keys
// state_dict, model_state_dict and model, where training scripts put them.
//
// Memory   The tensors' bytes stay in the file until they are read, one tensor at a time.
// Threads  One at a time.
// Errors   UserError naming the file: neither kind, no dict of tensors, several of those keys, a missing tensor,
//          what pth_file.hpp and safetensors.hpp refuse.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "archives/pth_file.hpp"
#include "base/safetensors.hpp"

namespace varscale::archives {

class StateFile {
 public:
  struct Tensor {
    base::DType dtype;
    std::vector<int64_t> shape;
  };

  // The state dict at one of the usual places.
  static StateFile open(const std::filesystem::path& path);

  // The file as it is, without tensors: whoever knows where they lie calls one of the two below, once.
  explicit StateFile(const std::filesystem::path& path);
  // Of a .pth: the tensors of this dict of it, which is called `words` in messages ("trainer.vae_local"; "": the file).
  void take(PthValue dict, const std::string& words = "");
  // Of a safetensors file: those whose name begins with the prefix, without it.
  void take(const std::string& prefix);

  const PthFile* pth() const noexcept { return pth_.get(); }                             // null: the other kind
  const base::SafetensorsFile* safetensors() const noexcept { return safetensors_.get(); }

  const std::string& where() const noexcept { return where_; }  // "a.pth", "a.pth: trainer.vae_local"
  const std::map<std::string, Tensor, std::less<>>& tensors() const noexcept { return tensors_; }
  const Tensor* find(std::string_view name) const;
  const Tensor& at(std::string_view name) const;
  uint64_t bytes(std::string_view name) const;
  void read(std::string_view name, void* out) const;  // bytes(name) of them, whatever its strides in the file

 private:
  std::string where_;
  std::map<std::string, Tensor, std::less<>> tensors_;
  std::unique_ptr<PthFile> pth_;
  std::map<std::string, const PthTensor*, std::less<>> pth_tensors_;
  std::unique_ptr<base::SafetensorsFile> safetensors_;
  std::string prefix_;
};

}  // namespace varscale::archives
