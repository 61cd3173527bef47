#include "entropies.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "laws.hpp"
#include "report_text.hpp"
#include "six_digits.hpp"

namespace varscale::analysis {
namespace {

TokenEntropies read_file(const std::filesystem::path& path, std::string& fingerprint) {
  try {
    const nlohmann::ordered_json json = base::parse_json(base::read_file(path));
    fingerprint = json.at("fingerprint").get<std::string>();
    const nlohmann::ordered_json& statistics = json.at("statistics");
    TokenEntropies entropies{path.filename().string(), statistics.at("unigram"), statistics.at("scale_unigram"),
                             statistics.at("class_unigram"), {}};
    for (const auto& scale : statistics.at("scales")) entropies.scales.push_back(scale.at("unigram"));
    return entropies;
  } catch (const nlohmann::ordered_json::exception& error) {
    throw base::UserError("{}: expected what var_data inspect --json prints of a token file with training and validation images ({})",
                          path.string(), error.what());
  }
}

}  // namespace

std::vector<UpperBound> TokenEntropies::of(Metric metric) const {
  if (metric == Metric::kLossMean)
    return {{"unigram", unigram}, {"unigram by scale", scale_unigram}, {"unigram by class", class_unigram}};
  if (metric == Metric::kLossTail && !scales.empty()) return {{"unigram of the last scale", scales.back()}};
  return {};
}

std::optional<TokenEntropies> read_entropies(const SweepRuns& sweep) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(sweep.folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("token_statistics") && name.ends_with(".json")) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  for (const std::filesystem::path& path : files) {
    std::string fingerprint;
    const TokenEntropies entropies = read_file(path, fingerprint);
    if (fingerprint == sweep.runs.front().tokens.tokens) return entropies;
  }
  return std::nullopt;
}

nlohmann::ordered_json entropies_json(const TokenEntropies& entropies) {
  nlohmann::ordered_json json = {{"file", entropies.file},
                                 {"unit", "nats per token"},
                                 {"meaning", "upper bounds: cross-entropy of validation tokens without a model; never used as E"},
                                 {"unigram", six(entropies.unigram)},
                                 {"scale_unigram", six(entropies.scale_unigram)},
                                 {"class_unigram", six(entropies.class_unigram)},
                                 {"scales", nlohmann::ordered_json::array()}};
  for (const double scale : entropies.scales) json["scales"].push_back(six(scale));
  return json;
}

std::string entropies_html(const TokenEntropies& entropies, const SweepRuns& sweep) {
  const Run& best = *std::ranges::min_element(sweep.runs, {}, [](const Run& run) { return run.final.loss_mean; });
  const std::vector<UpperBound> bounds = entropies.of(Metric::kLossMean);
  const double lowest = std::ranges::min_element(bounds, {}, &UpperBound::nats)->nats;
  return fmt::format(
      "<p>Without a model a validation token costs {} nats by the frequencies of the codes, {} by those of each scale and {} by those "
      "of each class (<code>{}</code>). These are upper bounds of the loss, and not its E; the lowest loss, of <code>{}</code>, is {} nats "
      "below the lowest of them.</p>\n",
      digits(entropies.unigram), digits(entropies.scale_unigram), digits(entropies.class_unigram), escape(entropies.file), escape(best.id),
      digits(lowest - best.final.loss_mean, 3));
}

}  // namespace varscale::analysis
