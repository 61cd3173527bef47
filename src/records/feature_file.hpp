// features.h5: what a network made of every image of a set, so that figures need neither again.
//
//   FeatureFileWriter writer("val.h5", info);
//   writer.append({.count = 16, .features = ..., .spatial = ..., .logits = ...});   // images in their order
//   writer.commit();                                                               // complete or absent
//   const FeatureFile file("val.h5");
//   file.read(FeaturePart::kFeatures, begin, count, floats);
//
// Layout   /features f32 [N, D]; /spatial f32 [N, E] and /logits f32 [N, C] where the network has them; chunks of whole
//          rows with HDF5's Fletcher checksum, so that damage is found as it is read. Attributes at the root: format,
//          schema_version and the members of FeatureFileInfo. h5py reads it.
// Bytes    Equal contents give equal files.
// Memory   Of both sides the rows of one call.
// Errors   UserError naming the file: not HDF5, not a feature file, an array of another type or shape, damaged or not
//          stored in full. Writing: SystemError.
// Legend   N images, D features, E spatial features, C classes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace varscale::records {

struct FeatureFileInfo {
  int64_t images = 0;                              // N
  int64_t features = 0, spatial = 0, classes = 0;  // D, E, C; 0: the file has none of the latter two
  int64_t group = 0;                               // images that the network saw together; statistics are summed by it
  std::string network, network_identity;           // its name, and SHA-256 over its weights
  bool random_weights = false;
  std::string images_path;         // where they lay, for people
  std::string images_fingerprint;  // SHA-256 over their names and sizes
  int64_t width = 0, height = 0;   // pixels
};

enum class FeaturePart { kFeatures, kSpatial, kLogits };

// `count` rows one after another; null where the info has 0 of them.
struct FeatureRows {
  int64_t count = 0;
  const float *features = nullptr, *spatial = nullptr, *logits = nullptr;
};

class FeatureFileWriter {
 public:
  FeatureFileWriter(const std::filesystem::path& path, const FeatureFileInfo& info);
  ~FeatureFileWriter();
  void append(const FeatureRows& rows);
  void commit();  // every row must have been written

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class FeatureFile {
 public:
  explicit FeatureFile(const std::filesystem::path& path);
  ~FeatureFile();
  FeatureFile(FeatureFile&&) noexcept;
  const FeatureFileInfo& info() const noexcept;
  const std::filesystem::path& path() const noexcept;
  // Rows [begin, begin + count) into `out`, which has room for them.
  void read(FeaturePart part, int64_t begin, int64_t count, float* out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace varscale::records
