#include "records/token_layout.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.hpp"

namespace varscale::records {

int64_t TokenFileInfo::tokens_per_image() const {
  int64_t sum = 0;
  for (const int64_t side : scales) sum += side * side;
  return sum;
}

namespace token_layout {

using base::UserError;

void check_info(const std::string& where, const TokenFileInfo& info) {
  const auto need = [&](const char* what, int64_t value, int64_t least, int64_t most) {
    if (value < least || value > most)
      throw UserError("{}: {} is {}; expected {} to {}", where, what, value, least, most);
  };
  need("train_images", info.train_images, 0, kLargestCount);
  need("validation_images", info.validation_images, 0, kLargestCount);
  need("crops", info.crops, 1, 1 << 16);
  need("the number of rows", info.rows(), 1, kLargestCount);
  need("classes", info.classes, 1, int64_t{1} << 31);
  need("vocabulary", info.vocabulary, 2, kLargestVocabulary);
  need("image_side", info.image_side, 1, 1 << 20);
  if (info.precision != "fp32" && info.precision != "bf16")
    throw UserError("{}: precision is {}; expected fp32 or bf16", where, info.precision);
  if (!info.class_names.empty())
    need("the number of class names", static_cast<int64_t>(info.class_names.size()), info.classes,
         info.classes);
  need("the number of scales", static_cast<int64_t>(info.scales.size()), 1, kLargestSide);
  int64_t last = 0;
  for (const int64_t side : info.scales) {
    if (side <= last || side > kLargestSide)
      throw UserError("{}: scales {}: {} follows {}; expected strictly increasing sides", where,
                      fmt::join(info.scales, ","), side, last);
    last = side;
  }
}

void check_quantizer_sizes(const std::string& where, const TokenFileInfo& info,
                           const QuantizerWeights& quantizer) {
  const int64_t v = quantizer.vocabulary, c = quantizer.code_width, p = quantizer.phis;
  if (v != info.vocabulary)
    throw UserError("{}: the quantizer has {} codes, but the vocabulary is {}", where, v,
                    info.vocabulary);
  if (c < 1 || c > 65536 || p < 0 || p > kLargestSide)
    throw UserError(
        "{}: the quantizer has code width {} and {} phis; expected 1 to 65536 and 0 to {}", where,
        c, p, kLargestSide);
}

std::string identity(const TokenFileInfo& info, const QuantizerWeights& quantizer) {
  std::string text = fmt::format(
      "{} {}\ntrain_images {}\nvalidation_images {}\ncrops {}\nclasses {}\nvocabulary {}\n"
      "scales {}\nimage_side {}\ncode_width {}\nphis {}\nphi_ratio {:.17g}\n"
      "tokenizer_fingerprint {}\npreprocessing {}\nsource_fingerprint {}\n",
      kFormat, kSchemaVersion, info.train_images, info.validation_images, info.crops, info.classes,
      info.vocabulary, fmt::join(info.scales, ","), info.image_side, quantizer.code_width,
      quantizer.phis, quantizer.phi_ratio, info.tokenizer_fingerprint, info.preprocessing,
      info.source_fingerprint);
  // Files of before there was a choice say nothing and are float32; so their fingerprints stay what they were.
  if (info.precision != "fp32") text += fmt::format("precision {}\n", info.precision);
  return text;
}

std::string fingerprint(const TokenFileInfo& info, const QuantizerWeights& quantizer,
                        const void* tokens, const void* labels, const void* split,
                        const void* source_ids) {
  base::Sha256 sum;
  const std::string words = identity(info, quantizer);
  sum.update(words.data(), words.size());
  for (const std::vector<float>* part :
       {&quantizer.embedding, &quantizer.phi_weight, &quantizer.phi_bias})
    sum.update(part->data(), part->size() * sizeof(float));
  const auto rows = static_cast<size_t>(info.rows());
  sum.update(tokens, rows * static_cast<size_t>(info.tokens_per_image()) * sizeof(uint16_t));
  sum.update(labels, rows * sizeof(int32_t));
  sum.update(split, rows * sizeof(uint8_t));
  sum.update(source_ids, rows * sizeof(int64_t));
  return sum.hex();
}

int64_t checksum_blocks(const TokenFileInfo& info) { return (info.rows() + kChecksumRows - 1) / kChecksumRows; }

uint64_t rows_checksum(const TokenFileInfo& info, const Columns& columns, int64_t first, int64_t count) {
  base::Sha256 sum;
  const auto add = [&](const std::byte* column, size_t item) {
    sum.update(column + static_cast<size_t>(first) * item, static_cast<size_t>(count) * item);
  };
  add(columns.tokens, static_cast<size_t>(info.tokens_per_image()) * sizeof(uint16_t));
  add(columns.labels, sizeof(int32_t));
  add(columns.split, sizeof(uint8_t));
  add(columns.source_ids, sizeof(int64_t));
  return std::stoull(sum.hex(8), nullptr, 16);
}

uint64_t block_checksum(const TokenFileInfo& info, const Columns& columns, int64_t block) {
  const int64_t first = block * kChecksumRows;
  return rows_checksum(info, columns, first, std::min(kChecksumRows, info.rows() - first));
}

}  // namespace token_layout
}  // namespace varscale::records
