#include "inspect.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/error.hpp"
#include "data/png.hpp"
#include "data/token_statistics.hpp"
#include "records/token_file.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::data {
namespace {

using records::TokenFile;
using records::TokenFileInfo;

nlohmann::ordered_json to_json(const TokenFile& file,
                               const std::optional<TokenStatistics>& statistics, bool verified) {
  const TokenFileInfo& info = file.info();
  nlohmann::ordered_json json = {{"file", file.path().string()},
                                 {"fingerprint", file.fingerprint()},
                                 {"verified", verified},
                                 {"train_images", info.train_images},
                                 {"validation_images", info.validation_images},
                                 {"crops", info.crops},
                                 {"rows", info.rows()},
                                 {"classes", info.classes},
                                 {"class_names", info.class_names},
                                 {"image_side", info.image_side},
                                 {"scales", info.scales},
                                 {"tokens_per_image", info.tokens_per_image()},
                                 {"vocabulary", info.vocabulary},
                                 {"tokenizer_fingerprint", info.tokenizer_fingerprint},
                                 {"tokenizer_path", info.tokenizer_path},
                                 {"source_fingerprint", info.source_fingerprint},
                                 {"preprocessing", info.preprocessing},
                                 {"precision", info.precision}};
  if (statistics) {
    const TokenStatistics& s = *statistics;
    json["statistics"] = {{"unit", "nats per token"},
                          {"codes_used", s.codes_used},
                          {"entropy", s.entropy},
                          {"unigram", s.unigram},
                          {"scale_unigram", s.scale_unigram},
                          {"class_unigram", s.class_unigram}};
    for (const ScaleStatistics& k : s.scales) {
      json["statistics"]["scales"].push_back({{"side", k.side},
                                              {"codes_used", k.codes_used},
                                              {"entropy", k.entropy},
                                              {"unigram", k.unigram}});
    }
  }
  return json;
}

void print_text(const TokenFile& file, const std::optional<TokenStatistics>& statistics,
                bool verified) {
  const TokenFileInfo& info = file.info();
  const auto line = [](const char* name, const std::string& value) {
    fmt::print("{:<15} {}\n", name, value);
  };
  line("file", file.path().string());
  line("fingerprint",
       file.fingerprint() + (verified ? " (verified: every token, label and checksum read)" : ""));
  line("images", fmt::format("{} training x {} crop{}, {} validation", info.train_images,
                             info.crops, info.crops == 1 ? "" : "s", info.validation_images));
  line("classes", info.class_names.empty()
                      ? fmt::format("{}", info.classes)
                      : fmt::format("{}: {} to {}", info.classes, info.class_names.front(),
                                    info.class_names.back()));
  line("image", fmt::format("{0}x{0} pixels, {1} tokens in scales {2}", info.image_side,
                            info.tokens_per_image(), fmt::join(info.scales, ",")));
  line("vocabulary",
       fmt::format("{} codes of width {}", info.vocabulary, file.quantizer().code_width));
  line("tokenizer", fmt::format("{} ({})", info.tokenizer_fingerprint, info.tokenizer_path));
  line("source", info.source_fingerprint);
  line("preprocessing", info.preprocessing);
  line("encoded in", info.precision);
  if (!statistics) {
    fmt::print("\nNo token statistics: they need training and validation images.\n");
    return;
  }
  const TokenStatistics& s = *statistics;
  fmt::print("\n{:>7} {:>7} {:>7} {:>11} {:>17} {:>24}\n", "scale", "tokens", "codes", "perplexity",
             "entropy (train)", "cross-entropy (val)");
  for (const ScaleStatistics& k : s.scales) {
    fmt::print("{:>7} {:>7} {:>7} {:>11.1f} {:>17.4f} {:>24.4f}\n", fmt::format("{0}x{0}", k.side),
               k.side * k.side, k.codes_used, std::exp(k.entropy), k.entropy, k.unigram);
  }
  fmt::print("{:>7} {:>7} {:>7} {:>11.1f} {:>17.4f} {:>24.4f}\n", "all", info.tokens_per_image(),
             s.codes_used, std::exp(s.entropy), s.entropy, s.unigram);
  fmt::print(
      "\nWithout a model, nats per validation token: {:.4f} from code frequencies, {:.4f} with "
      "each scale's own,\n"
      "{:.4f} with each class's own (uniform: {:.4f}).\n",
      s.unigram, s.scale_unigram, s.class_unigram, std::log(static_cast<double>(info.vocabulary)));
}

constexpr int64_t kColumns = 8;

// As many rows as fit on a line, evenly spread over [begin, end).
std::vector<int64_t> some_rows(int64_t begin, int64_t end) {
  std::vector<int64_t> rows;
  const int64_t count = std::min(kColumns, end - begin);
  for (int64_t i = 0; i < count; ++i) rows.push_back(begin + i * (end - begin) / count);
  return rows;
}

at::Tensor decoded_u8_BHWC(const TokenFile& file, const tokenizer::Vqvae& tokenizer, const std::vector<int64_t>& rows) {
  const int64_t length = file.info().tokens_per_image();
  at::Tensor tokens_BL = at::empty({static_cast<int64_t>(rows.size()), length}, at::kLong);
  auto* token = tokens_BL.mutable_data_ptr<int64_t>();
  for (const int64_t row : rows) token = std::copy_n(file.row(row), length, token);
  return to_u8_BHWC(tokenizer.decode_tokens(tokens_BL));
}

void write_rows_picture(const TokenFile& file, const InspectOptions& options) {
  const TokenFileInfo& info = file.info();
  const std::filesystem::path path =
      options.tokenizer.empty() ? std::filesystem::path(info.tokenizer_path) : options.tokenizer;
  std::error_code error;
  if (options.tokenizer.empty() && !std::filesystem::exists(path, error))
    throw base::UserError("{}: names {} as its tokenizer, which is not there; give --tokenizer", file.path().string(),
                          path.string());
  const auto tokenizer = tokenizer::Vqvae::load(path);
  if (tokenizer.fingerprint() != info.tokenizer_fingerprint)
    throw base::UserError("{}: is not the tokenizer of {}: its fingerprint is {}, expected {}", path.string(),
                          file.path().string(), tokenizer.fingerprint().substr(0, 16),
                          info.tokenizer_fingerprint.substr(0, 16));
  const int64_t train_rows = info.train_images * info.crops;
  std::vector<at::Tensor> lines;
  for (const auto& rows : {some_rows(0, train_rows), some_rows(train_rows, info.rows())}) {
    if (rows.empty()) continue;
    const at::Tensor images_u8_BHWC = decoded_u8_BHWC(file, tokenizer, rows);
    // White where a line has fewer images than the other.
    lines.push_back(at::constant_pad_nd(images_u8_BHWC, {0, 0, 0, 0, 0, 0, 0, kColumns - images_u8_BHWC.size(0)}, 255));
  }
  write_png(options.picture, grid(at::cat(lines), kColumns));
}

}  // namespace

void inspect(const InspectOptions& options) {
  const TokenFile file(options.file);
  if (options.verify) file.verify();
  if (!options.picture.empty()) write_rows_picture(file, options);
  std::optional<TokenStatistics> statistics;
  if (file.info().train_images > 0 && file.info().validation_images > 0)
    statistics = token_statistics(file);
  if (options.json) {
    fmt::print("{}\n", to_json(file, statistics, options.verify).dump(2));
  } else {
    print_text(file, statistics, options.verify);
  }
}

}  // namespace varscale::data
