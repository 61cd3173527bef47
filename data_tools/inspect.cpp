#include "inspect.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/token_statistics.hpp"
#include "records/token_file.hpp"

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
                                 {"preprocessing", info.preprocessing}};
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
       file.fingerprint() + (verified ? " (verified: every token and label read)" : ""));
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

}  // namespace

void inspect(const InspectOptions& options) {
  const TokenFile file(options.file);
  if (options.verify) file.verify();
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
