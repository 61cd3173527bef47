// tokens.h5: the images of a data set as token maps, computed once for all depths.
//
//   TokenFileWriter writer(path, info, quantizer);
//   writer.write_row(row, tokens_L, label, source);       // rows in any order, each once
//   writer.commit();                                      // complete or absent
//   TokenFile file(path);                                 // mapped read-only
//   const uint16_t* tokens_L = file.row(i);
//
// Layout   /tokens u16 [row, L] contiguous; /labels i32 [row]; /split u8 [row] (0 train, 1
//          validation); /source_id i64 [row] (the image's number in the source listing);
//          /quantizer/embedding f32 [V, Cvae], /quantizer/phi_weight f32 [P, Cvae, Cvae, 3, 3],
//          /quantizer/phi_bias f32 [P, Cvae]: all that training needs of the tokenizer (no phi
//          arrays when P is 0). Attributes at the root: format, schema_version, fingerprint and
//          the members of TokenFileInfo; the class names are /class_names. /checksums u64 [block], one for
//          each `checksum_rows` rows, says which rows are damaged; older files have none.
//          Train rows come first (image i, crop c at row i * crops + c), then one row a validation
//          image.
// Bytes    Equal rows and info give equal files, whoever wrote which rows when.
// Errors   UserError naming the file: not HDF5, not a token file, truncated (arrays against the
//          file's size), a token not below the vocabulary (checked by verify()); on writing, a row
//          written twice or a label that is no class.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace varscale::records {

// How training images were made rows: what it takes to encode other crops of them later.
struct TrainSource {
  uint64_t crop_seed = 0;
  bool keep_exact = true;   // images of exactly image_side were taken as they are
  std::string fingerprint;  // of the listing of the training images alone
  bool operator==(const TrainSource&) const = default;
};

struct TokenFileInfo {
  int64_t train_images = 0, validation_images = 0;
  int64_t crops = 1;  // rows per training image
  int64_t classes = 0;
  std::vector<std::string> class_names;
  int64_t vocabulary = 0;
  std::vector<int64_t> scales;        // sides
  int64_t image_side = 0;             // pixels
  std::string tokenizer_fingerprint;  // of the tokenizer's weights and configuration
  std::string preprocessing;          // in words: resize, crop, range
  std::string source_fingerprint;     // of the source listing
  std::string tokenizer_path;         // for humans; not part of the identity
  // Of the encoder's arithmetic, "fp32" or "bf16": the nearest codes of a near tie differ. Part of the identity.
  std::string precision = "fp32";
  // Files of an older var_data have none. Not part of the identity, which has it in preprocessing and
  // source_fingerprint.
  std::optional<TrainSource> train_source = {};
  int64_t tokens_per_image() const;
  int64_t rows() const { return train_images * crops + validation_images; }
};

// The quantiser's numbers, row-major.
struct QuantizerWeights {
  int64_t vocabulary = 0, code_width = 0, phis = 0;
  double phi_ratio = 0.5;         // phi(h) = (1 - ratio) h + ratio conv(h)
  std::vector<float> embedding;   // [V, Cvae]
  std::vector<float> phi_weight;  // [P, Cvae, Cvae, 3, 3]
  std::vector<float> phi_bias;    // [P, Cvae]
};

class TokenFileWriter {
 public:
  TokenFileWriter(const std::filesystem::path& path, const TokenFileInfo& info,
                  const QuantizerWeights& quantizer);
  ~TokenFileWriter();
  void write_row(int64_t row, const uint16_t* tokens_L, int32_t label, int64_t source_id);
  // Every row must have been written. Reads the tokens once more for the fingerprint.
  void commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class TokenFile {
 public:
  explicit TokenFile(const std::filesystem::path& path);
  ~TokenFile();
  TokenFile(TokenFile&&) noexcept;
  const TokenFileInfo& info() const noexcept;
  const QuantizerWeights& quantizer() const noexcept;
  const std::filesystem::path& path() const noexcept;
  const uint16_t* row(int64_t row) const;  // [L], into the mapping
  int32_t label(int64_t row) const;
  int64_t source_id(int64_t row) const;
  int64_t train_row(int64_t image, int64_t crop) const;
  int64_t validation_row(int64_t image) const;
  // Enters a run's identity: the SHA-256 over the identity part of the info, the quantizer, tokens,
  // labels, split and source ids, stored by commit(); reading it costs nothing.
  const std::string& fingerprint() const noexcept;
  // Recomputes checksums and fingerprint and checks every token and label; UserError on a difference, with the
  // rows in which it lies.
  void verify() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace varscale::records
