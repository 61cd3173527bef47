// The safetensors container: 8-byte little-endian header length, JSON header, raw tensors.
//
//   SafetensorsFile file("vqvae_64.safetensors");          // mapped, checked, not copied
//   const TensorView& f = file.at("f");                    // f.shape, f.dtype, f.data
//   SafetensorsWriter writer; writer.add("w", DType::kF32, {2, 3}, pointer); writer.save(path);
//
// Memory   Views live as long as the file object. The writer keeps pointers, not the bytes.
// Errors   UserError naming the file and the key: not a safetensors file, truncated, unknown dtype,
//          overlapping, out-of-range or unused bytes, a missing key (with the nearest one).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.hpp"

namespace varscale::base {

enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kU16, kBool };
size_t dtype_size(DType dtype) noexcept;
std::string_view dtype_name(DType dtype) noexcept;  // "F32", as the format spells it

struct TensorView {
  DType dtype;
  std::vector<int64_t> shape;
  const std::byte* data;
  size_t bytes;
  int64_t numel() const noexcept;
};

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  const TensorView& at(std::string_view name) const;
  bool contains(std::string_view name) const;
  const std::map<std::string, TensorView, std::less<>>& tensors() const noexcept {
    return tensors_;
  }
  const std::map<std::string, std::string, std::less<>>& metadata() const noexcept {
    return metadata_;
  }
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
  MappedFile file_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

class SafetensorsWriter {
 public:
  void add(std::string name, DType dtype, std::vector<int64_t> shape, const void* data);
  // The same for bytes that are made when they are written: `fill` is called by save(), one tensor at a time.
  using Fill = std::function<void(void* out)>;
  void add(std::string name, DType dtype, std::vector<int64_t> shape, Fill fill);
  void set_metadata(std::string key, std::string value);
  void save(const std::filesystem::path& path) const;  // aside, fsync, rename

 private:
  struct Entry {
    std::string name;
    DType dtype;
    std::vector<int64_t> shape;
    const void* data;
    Fill fill = {};
  };
  void add_entry(Entry entry);
  std::vector<Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace varscale::base
