// What the tests of data share: fixture files, token files with known rows, trees of small images.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/safetensors.hpp"
#include "data/image_file.hpp"
#include "nn/tensor.hpp"
#include "records/token_file.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::data {

using base::message_of;
using base::TemporaryFolder;
using base::UserError;

inline std::filesystem::path image_fixture(const std::string& name) {
  const char* fixtures = std::getenv("VARSCALE_FIXTURES");
  return std::filesystem::path(fixtures == nullptr ? "VARSCALE_FIXTURES is not set" : fixtures) /
         "images" / name;
}

// What Pillow gives for a fixture image: uint8 [H,W,3].
inline at::Tensor pillow(const std::string& name) {
  return nn::load_tensor(base::SafetensorsFile(image_fixture("expected.safetensors")), name);
}

inline at::Tensor to_tensor(const RgbImage& image) {
  at::Tensor tensor = at::empty({image.height, image.width, 3}, at::kByte);
  std::copy(image.pixels.begin(), image.pixels.end(), tensor.mutable_data_ptr<uint8_t>());
  return tensor;
}

inline RgbImage to_image(const at::Tensor& tensor_HWC) {
  const at::Tensor t = tensor_HWC.contiguous();
  const auto* data = t.const_data_ptr<uint8_t>();
  return {t.size(1), t.size(0), std::vector<uint8_t>(data, data + t.numel())};
}

inline int64_t largest_difference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a.to(at::kLong) - b.to(at::kLong)).abs().max().item<int64_t>();
}

// Writes a PNG of one colour, making its folder.
inline std::filesystem::path write_plain(const std::filesystem::path& path, int64_t width,
                                         int64_t height, uint8_t value) {
  std::filesystem::create_directories(path.parent_path());
  const std::vector<uint8_t> pixels(width * height * 3, value);
  write_png_file(path, pixels.data(), width, height, Durability::kPlain);
  return path;
}

// `classes` folders c0, c1, ... with `images` PNG files each; image k of class c is of grey 20 c + k.
inline void write_tree(const std::filesystem::path& folder, int64_t classes, int64_t images,
                       int64_t side) {
  for (int64_t c = 0; c < classes; ++c) {
    for (int64_t k = 0; k < images; ++k) {
      write_plain(folder / ("c" + std::to_string(c)) / (std::to_string(k) + ".png"), side, side,
                  static_cast<uint8_t>(20 * c + k));
    }
  }
}

inline void truncate(const std::filesystem::path& path) {
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
}

inline records::QuantizerWeights small_quantizer(int64_t vocabulary) {
  records::QuantizerWeights q;
  q.vocabulary = vocabulary;
  q.code_width = 2;
  q.phis = 1;
  q.embedding.assign(vocabulary * 2, 0.5f);
  q.phi_weight.assign(2 * 2 * 9, 0.f);
  q.phi_bias.assign(2, 0.f);
  return q;
}

// A token file whose token l of row r is token(r, l), with label(r).
inline std::filesystem::path write_tokens(const std::filesystem::path& path, int64_t train,
                                          int64_t validation, int64_t crops,
                                          const std::function<uint16_t(int64_t, int64_t)>& token,
                                          const std::function<int32_t(int64_t)>& label,
                                          int64_t classes = 10, int64_t vocabulary = 4096) {
  records::TokenFileInfo info;
  info.train_images = train;
  info.validation_images = validation;
  info.crops = crops;
  info.classes = classes;
  for (int64_t c = 0; c < classes; ++c) info.class_names.push_back("c" + std::to_string(c));
  info.vocabulary = vocabulary;
  info.scales = {1, 2};
  info.image_side = 8;
  info.tokenizer_fingerprint = "t";
  info.preprocessing = "none";
  info.source_fingerprint = "s";
  records::TokenFileWriter writer(path, info, small_quantizer(vocabulary));
  for (int64_t r = 0; r < info.rows(); ++r) {
    std::vector<uint16_t> row(5);
    for (int64_t l = 0; l < 5; ++l) row[l] = token(r, l);
    writer.write_row(r, row.data(), label(r), r);
  }
  writer.commit();
  return path;
}

}  // namespace varscale::data
