#include "records/score_file.hpp"

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"

namespace varscale::records {

using OrderedJson = nlohmann::ordered_json;

namespace {

constexpr int64_t kScoreSchema = 1;

void put(OrderedJson& json, const char* key, const std::optional<double>& value) {
  if (value) json[key] = *value;
}

std::optional<double> maybe(const OrderedJson& json, const char* key) {
  const auto found = json.find(key);
  return found == json.end() ? std::nullopt : std::optional(found->get<double>());
}

}  // namespace

OrderedJson score_json(const Score& score) {
  OrderedJson json{{"cfg", score.cfg}, {"frechet", score.frechet}};
  put(json, "spatial_frechet", score.spatial_frechet);
  put(json, "kid", score.kernel);
  put(json, "precision", score.precision);
  put(json, "recall", score.recall);
  put(json, "inception_score", score.inception_score);
  return json;
}

Score score_of(const OrderedJson& json) {
  return {.cfg = json.at("cfg").get<double>(),
          .frechet = json.at("frechet").get<double>(),
          .spatial_frechet = maybe(json, "spatial_frechet"),
          .inception_score = maybe(json, "inception_score"),
          .kernel = maybe(json, "kid"),
          .precision = maybe(json, "precision"),
          .recall = maybe(json, "recall")};
}

void write_scores(const std::filesystem::path& path, const RunScores& scores) {
  OrderedJson json;
  json["schema_version"] = kScoreSchema;
  json["run"] = scores.run;
  json["frechet_name"] = scores.frechet_name;
  json["network"] = {{"name", scores.network}, {"identity", scores.network_identity}};
  json["reference"] = {
      {"path", scores.reference}, {"fingerprint", scores.reference_fingerprint}, {"images", scores.reference_images}};
  json["images"] = scores.images;
  json["protocol"] = score_json(scores.protocol);
  if (scores.best) {
    json["best"] = score_json(*scores.best);
    json["grid"] = OrderedJson::array();
    for (const GridScore& each : scores.grid) json["grid"].push_back({{"cfg", each.cfg}, {"frechet", each.frechet}});
  }
  json["settings"] = scores.settings;
  base::write_file_atomic(path, base::json_text(json, 2) + "\n");
}

std::optional<RunScores> read_scores(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  try {
    const OrderedJson json = base::parse_json(base::read_file(path));
    if (const auto schema = json.at("schema_version").get<int64_t>(); schema != kScoreSchema)
      throw base::UserError("{}: schema_version is {}; this program reads {}", path.string(), schema, kScoreSchema);
    RunScores scores;
    scores.run = json.at("run").get<std::string>();
    scores.settings = json.at("settings");
    scores.frechet_name = json.at("frechet_name").get<std::string>();
    scores.network = json.at("network").at("name").get<std::string>();
    scores.network_identity = json.at("network").at("identity").get<std::string>();
    scores.reference = json.at("reference").at("path").get<std::string>();
    scores.reference_fingerprint = json.at("reference").at("fingerprint").get<std::string>();
    scores.reference_images = json.at("reference").at("images").get<int64_t>();
    scores.images = json.at("images").get<int64_t>();
    scores.protocol = score_of(json.at("protocol"));
    if (!json.contains("best")) return scores;
    scores.best = score_of(json.at("best"));
    for (const OrderedJson& each : json.at("grid"))
      scores.grid.push_back({each.at("cfg").get<double>(), each.at("frechet").get<double>()});
    return scores;
  } catch (const OrderedJson::exception& error) {
    throw base::UserError("{}: not scores as var_eval sweep writes them ({})", path.string(), error.what());
  }
}

}  // namespace varscale::records
