// Files of Python's torch.save: read without Python, and written so that torch.load(weights_only=True) takes them.
//
//   PthFile file("var_d16.pth");
//   const PthTensor& bias = file.root().find("head.bias")->tensor();
//   std::vector<std::byte> bytes(bias.bytes());
//   file.read(bias, bytes.data());                                   // in contiguous order, whatever its strides
//
//   PthWriter out("weights.pth", {{"head.bias", DType::kF32, {4096}}, ...});
//   out.write(data, bytes);                                          // tensor after tensor, in pieces of any size
//   out.commit();                                                    // complete or absent
//
// Reads    The zip form (torch 1.6 and later) and the older one. What lies in a file is a tree of values (pickle.hpp);
//          the tensors' bytes stay in the file until they are read.
// Writes   An OrderedDict of tensors, stored, each at a multiple of 64 bytes. The same data give the same bytes.
// Errors   UserError naming the file: neither form, big-endian, truncated or damaged bytes, what pickle.hpp and
//          zip_file.hpp refuse. A storage must have the bytes that its type and length say.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "archives/pickle.hpp"
#include "archives/zip_file.hpp"
#include "base/file.hpp"
#include "base/safetensors.hpp"

namespace varscale::archives {

class PthFile {
 public:
  explicit PthFile(const std::filesystem::path& path);
  ~PthFile();

  const std::filesystem::path& path() const noexcept { return path_; }
  PthValue root() const { return pickle_.value(); }
  bool is_older_form() const noexcept { return mapped_.has_value(); }

  // tensor.bytes() bytes, row-major. One thread at a time.
  void read(const PthTensor& tensor, void* out) const;

 private:
  void open_zip();
  void open_older();
  void read_storage(const std::string& key, uint64_t offset, void* out, uint64_t count) const;

  std::filesystem::path path_;
  std::unique_ptr<ZipFile> zip_;
  std::map<std::string, const ZipEntry*> entries_;  // of the storages
  std::optional<base::MappedFile> mapped_;
  std::map<std::string, uint64_t> places_;  // of the storages, in the older form
  Pickle pickle_;
};

class PthWriter {
 public:
  struct Tensor {
    std::string name;   // UTF-8
    base::DType dtype;  // any but kU16
    std::vector<int64_t> shape;
  };
  PthWriter(const std::filesystem::path& target, std::vector<Tensor> tensors);

  void write(const void* bytes, size_t count);
  void commit();  // InvariantError unless all bytes have been written

 private:
  void begin_next();
  ZipWriter zip_;
  std::vector<Tensor> tensors_;
  size_t next_ = 0;    // the tensor whose bytes are expected
  uint64_t left_ = 0;  // of them
};

}  // namespace varscale::archives
