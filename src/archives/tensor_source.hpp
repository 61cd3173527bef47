// A state dict as other programs leave it: named tensors in a .pth or a .safetensors file.
//
//   const TensorSource source = TensorSource::open("ar-ckpt-last.pth", Part::kVar);
//   std::vector<float> bias = source.read_float("head.bias");
//
// Knows the flat state dicts of the public VAR and tokenizer, and the public trainer's checkpoint, in which both lie
// (trainer.var_wo_ddp, trainer.vae_local). Of a safetensors file the keys have these words as prefixes.
//
// Errors   UserError naming the file: neither kind of file, none of these, both where one has to be chosen, a key that
//          is no tensor, a missing key, a dtype that is not wanted, a file that this program has written itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "archives/state_file.hpp"

namespace varscale::archives {

enum class Part { kWhicheverIsThere, kVar, kTokenizer };

class TensorSource {
 public:
  using Tensor = StateFile::Tensor;

  static TensorSource open(const std::filesystem::path& path, Part part = Part::kWhicheverIsThere);

  const std::string& where() const noexcept { return file_.where(); }  // "a.pth", "a.pth: trainer.var_wo_ddp"
  Part part() const noexcept { return part_; }                         // kVar or kTokenizer
  const std::map<std::string, Tensor, std::less<>>& tensors() const noexcept { return file_.tensors(); }
  const Tensor* find(std::string_view name) const { return file_.find(name); }
  const Tensor& at(std::string_view name) const { return file_.at(name); }
  // patch_nums of the trainer's checkpoint.
  const std::optional<std::vector<int64_t>>& scales() const noexcept { return scales_; }

  // Row-major. Half precision widens; any other dtype is refused.
  std::vector<float> read_float(std::string_view name) const;
  std::vector<int64_t> read_integers(std::string_view name) const;  // int64 alone

 private:
  TensorSource(const std::filesystem::path& path, Part part) : file_(path), part_(part) {}
  void take_from_pth();
  void take_from_safetensors();
  std::vector<std::byte> read(std::string_view name) const;

  StateFile file_;
  Part part_ = Part::kWhicheverIsThere;
  std::optional<std::vector<int64_t>> scales_;
};

}  // namespace varscale::archives
