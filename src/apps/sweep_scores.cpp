#include "sweep_scores.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/progress.hpp"
#include "base/signals.hpp"
#include "data/vips_runtime.hpp"
#include "evaluate/comparison.hpp"
#include "evaluate/image_features.hpp"
#include "evaluate/image_folder.hpp"
#include "feature_option.hpp"
#include "generate/sample_job.hpp"
#include "generate/sampler.hpp"
#include "image_side.hpp"
#include "records/score_file.hpp"
#include "sample_model.hpp"
#include "sweep/ledger.hpp"
#include "sweep/spec.hpp"
#include "sweep/text_table.hpp"

namespace varscale::apps {
namespace {

namespace fs = std::filesystem;
using base::ExitCode;
using base::UserError;
using Json = nlohmann::ordered_json;

// One set of samples of a run.
struct Draw {
  double cfg = 0;
  uint64_t seed = 0;
  int64_t images = 0;
  std::string name() const { return fmt::format("cfg-{}-seed-{}-{}", cfg, seed, images); }
};

class SweepScorer {
 public:
  SweepScorer(const SweepToScore& what, comm::Communicator& world) : what_(what), world_(world) {
    // A rank waits while the first takes figures, or while another draws the last of its share.
    world_.set_deadline(30.0 * 24 * 3600);
    comm::agree_on(world_, "sweep file", [&] { open(); });
    // One rank reads what may be a large file.
    comm::agree_on(world_, "reference", [&] {
      if (is_first()) reference_names_ = reference_->fingerprint();
    });
    reference_names_ = world_.broadcast_bytes(reference_names_, 0, "fingerprint of the reference");
    settings_ = settings();
  }

  ExitCode score_all() {
    take_reference();
    std::vector<std::pair<const sweep::SweepRun*, records::RunScores>> done;
    int64_t waiting = 0, others = 0;
    for (const sweep::SweepRun& run : sweep_.runs) {
      if (run.config.role == "trunk") continue;  // ends before any decay
      if (run.tokens.tokenizer != made_by_) {
        ++others;
        continue;
      }
      if (!said_by_first(is_first() && is_finished(run), "state of a run")) {
        ++waiting;
        continue;
      }
      std::optional<records::RunScores> scores = score(run);
      if (!scores) return ExitCode::kStopped;
      done.emplace_back(&run, std::move(*scores));
    }
    if (is_first()) print(done, waiting, others);
    return ExitCode::kDone;
  }

 private:
  bool is_first() const { return world_.rank() == 0; }
  // Collective: the first rank's word.
  bool said_by_first(bool word, std::string_view tag) {
    return world_.broadcast_bytes(word ? "y" : "n", 0, tag) == "y";
  }
  const sweep::EvaluationConfig& config() const { return *sweep_.evaluation; }
  at::ScalarType compute() const { return config().precision == "bf16" ? at::kBFloat16 : at::kFloat; }
  const tokenizer::Vqvae& decoder() const { return decoder_ ? *decoder_ : *tokenizer_; }

  void open() {
    sweep_ = sweep::load_sweep(what_.file, what_.overrides, sweep::Purpose::kTrain);
    if (!sweep_.evaluation)
      throw UserError("{}: has no section evaluate; expected one that names tokenizer, reference, features and images",
                      what_.file.string());
    for (const auto& [key, value] :
         {std::pair("tokenizer", config().tokenizer), std::pair("reference", config().reference),
          std::pair("features", config().features)})
      if (value.empty())
        throw UserError("{}: evaluate.{} is empty; set the variable of the environment that the file takes it from, or "
                        "--set evaluate.{}=...",
                        what_.file.string(), key, key);
    ledger_.emplace(sweep::Ledger::look(sweep_));
    tokenizer_.emplace(tokenizer::Vqvae::load(config().tokenizer));
    if (compute() != at::kFloat) {
      decoder_.emplace(tokenizer_->to(at::kCPU));  // a copy
      decoder_->decode_in(compute());
    }
    made_by_ = tokenizer_->fingerprint();
    if (std::ranges::none_of(sweep_.runs, [&](const auto& run) { return run.tokens.tokenizer == made_by_; }))
      throw UserError("evaluate.tokenizer {}: made the tokens of no run of this sweep", config().tokenizer);
    const int64_t side = tokenizer_->config().image_side;
    FeatureOption option{.features = config().features, .name = config().name, .seed = {}, .prefix = "evaluate."};
    if (config().random_features()) option.seed = config().feature_seed;
    network_.emplace(feature_network(option));
    reference_.emplace(open_image_side("evaluate.reference", config().reference));
    if (reference_->width > 0 && (reference_->width != side || reference_->height != side))
      throw UserError("evaluate.reference {}: holds images of {} x {} pixels, the tokenizer {} makes {} x {}",
                      config().reference, reference_->width, reference_->height, config().tokenizer, side, side);
    facts_ = network_of_sides(option, &*network_, {&*reference_});
  }

  Json settings() const {
    Json settings{{"tokenizer", made_by_},
                  {"network", facts_.name},
                  {"network_identity", facts_.identity},
                  {"reference_fingerprint", reference_names_},
                  {"reference_images", reference_->size()},
                  {"images", config().images},
                  {"cfg", config().cfg},
                  {"seed", config().seed}};
    if (!config().cfg_grid.empty()) {
      settings["cfg_grid"] = config().cfg_grid;
      settings["grid_images"] = config().images_of_grid();
      settings["grid_seed"] = config().grid_seed;
    }
    settings["top_k"] = config().top_k;
    settings["top_p"] = config().top_p;
    settings["temperature"] = config().temperature;
    settings["precision"] = config().precision;
    settings["group"] = config().group;
    settings["feature_batch"] = config().feature_batch;
    return settings;
  }

  // Of the first rank: the reference's features, made once for all launches on this sweep folder.
  void take_reference() {
    comm::agree_on(world_, "reference", [&] {
      if (!is_first()) return;
      if (reference_->stored) against_.features.emplace(evaluate::stored_features(*reference_->stored));
      against_.take_statistics(*reference_, network_->dimension(), network_->spatial_dimension());
    });
    if (reference_->rows.count == 0) return;
    const fs::path kept = sweep_.output / "reference.h5";
    bool is_there = false;
    comm::agree_on(world_, "reference", [&] {
      if (!is_first() || !fs::exists(kept)) return;
      const records::FeatureFile file(kept);
      is_there = file.info().images_fingerprint == reference_names_ && file.info().group == config().feature_batch &&
                 file.info().network_identity == facts_.identity && file.info().network == facts_.name;
    });
    if (!said_by_first(is_there, "reference")) {
      records::FeatureFileInfo info;
      info.group = config().feature_batch;
      info.images_path = config().reference, info.images_fingerprint = reference_names_;
      info.width = reference_->width, info.height = reference_->height;
      base::Progress progress("reference", reference_->size(), "images", style());
      evaluate::write_features(kept, *network_, reference_->rows, info, world_,
                               [&](int64_t count) { progress.advance(count); });
      progress.finish();
    }
    comm::agree_on(world_, "reference", [&] {
      if (is_first()) against_.features.emplace(evaluate::stored_features(records::FeatureFile(kept)));
    });
  }

  bool is_finished(const sweep::SweepRun& run) const { return ledger_->status(run.id).state == sweep::RunState::kDone; }

  // Nothing where a signal has stopped it.
  std::optional<records::RunScores> score(const sweep::SweepRun& run) {
    const fs::path folder = ledger_->run_folder(run.id), path = folder / "scores.json";
    std::optional<records::RunScores> there;
    comm::agree_on(world_, "scores of before", [&] {
      if (is_first()) there = records::read_scores(path);
      if (there && there->settings != settings_) there.reset();
    });
    const bool is_there = said_by_first(there.has_value(), "scores of before");
    if (is_there) return is_first() ? std::move(there) : records::RunScores{};

    std::optional<SampleModel> model;
    comm::agree_on(world_, "model",
                   [&] { model.emplace(load_sample_model(folder, {}, config().tokenizer, *tokenizer_)); });
    part_ = folder / "scores.part";
    comm::agree_on(world_, "figures of before", [&] {
      if (is_first()) open_part();
    });
    records::RunScores scores;
    scores.run = run.id;
    scores.settings = settings_;
    scores.frechet_name = evaluate::frechet_name(facts_);
    scores.network = facts_.name, scores.network_identity = facts_.identity;
    scores.reference = config().reference, scores.reference_fingerprint = reference_names_;
    scores.reference_images = reference_->size(), scores.images = config().images;
    for (const double cfg : config().cfg_grid) {
      const auto judged = figures_of(run, *model, {cfg, config().grid_seed, config().images_of_grid()});
      if (!judged) return std::nullopt;
      scores.grid.push_back({cfg, judged->frechet});
    }
    const auto protocol = figures_of(run, *model, {config().cfg, config().seed, config().images});
    if (!protocol) return std::nullopt;
    scores.protocol = *protocol;
    if (!scores.grid.empty()) {
      const double best = std::ranges::min_element(scores.grid, {}, &records::GridScore::frechet)->cfg;
      scores.best = figures_of(run, *model, {best, config().seed, config().images});
      if (!scores.best) return std::nullopt;
    }
    comm::agree_on(world_, "scores", [&] {
      if (!is_first()) return;
      records::write_scores(path, scores);
      lock_ = {};
      fs::remove_all(part_);
    });
    return scores;
  }

  // figures.json has what is known of this run so far, under these settings.
  void open_part() {
    lock_ = base::LockedFolder(part_, part_, "another launch is scoring this run");
    figures_.clear();
    const fs::path path = part_ / "figures.json";
    const Json before = fs::exists(path) ? Json::parse(base::read_file(path), nullptr, false) : Json();
    if (before.is_object() && before.value("settings", Json()) == settings_) {
      for (const auto& [name, score] : before.at("scores").items()) figures_[name] = records::score_of(score);
      return;
    }
    lock_.clear();
    keep_figures();  // says from now on that what lies there is of these settings
  }

  void keep(const Draw& draw, const records::Score& score) {
    figures_[draw.name()] = score;
    keep_figures();
  }
  void keep_figures() const {
    Json json{{"settings", settings_}, {"scores", Json::object()}};
    for (const auto& [name, each] : figures_) json["scores"][name] = records::score_json(each);
    base::write_file_atomic(part_ / "figures.json", base::json_text(json, 2) + "\n");
  }

  // Of the first rank; the others get an empty score, or nothing where it was stopped.
  std::optional<records::Score> figures_of(const sweep::SweepRun& run, const SampleModel& model, const Draw& draw) {
    const auto before = figures_.find(draw.name());
    const std::string known =
        world_.broadcast_bytes(is_first() && before != figures_.end() ? records::score_json(before->second).dump() : "",
                               0, "figures of before");
    if (!known.empty()) return records::score_of(Json::parse(known));
    if (is_first()) fmt::print(stderr, "{}: {} samples at cfg {}, seed {}\n", run.id, draw.images, draw.cfg, draw.seed);

    const generate::Sampler sampler(model.model, tokenizer_->quantizer(),
                                    {.cfg = draw.cfg,
                                     .top_k = config().top_k,
                                     .top_p = config().top_p,
                                     .temperature = config().temperature,
                                     .seed = draw.seed,
                                     .group = config().group,
                                     .compute = compute()});
    generate::SampleJob job({.folder = part_ / draw.name(),
                             .requests = requests_of(draw, model.model.shape().classes),
                             .group = config().group,
                             .side = tokenizer_->config().image_side,
                             .tokens = tokenizer_->quantizer().config().scales.tokens(),
                             .batch = config().batch,
                             .settings = settings_},
                            world_);
    if (!job.draw(sampler, decoder(), [&] { return stop_.requested(); })) {
      if (is_first())
        fmt::print(stderr, "stopped after {} of {} samples; start it again to go on\n", job.images_done(), draw.images);
      return std::nullopt;
    }
    base::Progress progress("features", draw.images, "images", style());
    const evaluate::ImageRows samples{
        draw.images, [&](int64_t begin, int64_t count) { return job.batch(begin, count); }};
    const evaluate::ImageFeatures features = evaluate::features_of(
        *network_, samples, config().feature_batch, world_, [&](int64_t count) { progress.advance(count); });
    progress.finish();
    records::Score score;
    comm::agree_on(world_, "figures", [&] {
      if (!is_first()) return;
      score = score_from(draw, against_.compare(facts_, features));
      keep(draw, score);
    });
    comm::agree_on(world_, "samples are looked at", [&] { job.finish(); });
    return records::score_of(Json::parse(world_.broadcast_bytes(records::score_json(score).dump(), 0, "figures")));
  }

  static records::Score score_from(const Draw& draw, const evaluate::Comparison& c) {
    records::Score score;
    score.cfg = draw.cfg, score.frechet = c.frechet, score.spatial_frechet = c.spatial;
    if (c.kernel) score.kernel = c.kernel->mean;
    if (c.neighbourhoods) score.precision = c.neighbourhoods->precision, score.recall = c.neighbourhoods->recall;
    if (c.inception_score) score.inception_score = c.inception_score->mean;
    return score;
  }

  static std::vector<generate::Request> requests_of(const Draw& draw, int64_t classes) {
    std::vector<generate::Request> requests;
    for (int64_t c = 0; c < classes; ++c)
      for (int64_t j = 0; j < draw.images / classes; ++j)
        requests.push_back({.image = image_index(c, j), .label = c});
    return requests;
  }

  base::Progress::Style style() const {
    return is_first() ? base::Progress::Style::kAuto : base::Progress::Style::kSilent;
  }

  using Done = std::vector<std::pair<const sweep::SweepRun*, records::RunScores>>;
  void print(const Done& done, int64_t waiting, int64_t others) const {
    const std::string name = evaluate::frechet_name(facts_);
    if (what_.json) {
      Json json = Json::array();
      for (const auto& [run, scores] : done) {
        Json each{{"run", scores.run}, {"frechet_name", scores.frechet_name}};
        each["protocol"] = records::score_json(scores.protocol);
        if (scores.best) each["best"] = records::score_json(*scores.best);
        json.push_back(std::move(each));
      }
      fmt::print("{}\n", base::json_text(json, 2));
      return;
    }
    const bool grid = !config().cfg_grid.empty();
    std::vector<std::string> head{"id", "depth", fmt::format("{} at cfg {:g}", name, config().cfg)};
    if (grid) head.insert(head.end(), {"best cfg", name + " there"});
    sweep::TextTable table(head);
    for (const auto& [run, scores] : done) {
      std::vector<std::string> cells{run->id, fmt::format("{}", run->config.model.depth),
                                     fmt::format("{:.5g}", scores.protocol.frechet)};
      if (grid)
        cells.insert(cells.end(), {fmt::format("{:g}", scores.best->cfg), fmt::format("{:.5g}", scores.best->frechet)});
      table.add(cells);
    }
    std::string rest = waiting > 0 ? fmt::format("; {} are not finished", waiting) : "";
    if (others > 0) rest += fmt::format("; {} have tokens of other tokenizers", others);
    const std::string against =
        reference_->size() > 0 ? fmt::format("{} images of", reference_->size()) : "the statistics of";
    fmt::print("sweep {}: {} runs scored on {} samples each against {} {}{}\n\n{}", sweep_.name, done.size(),
               config().images, against, config().reference, rest, table.text());
  }

  const SweepToScore& what_;
  comm::Communicator& world_;
  base::StopSignals stop_;  // before any thread computes
  const data::VipsRuntime vips_{"var_eval"};
  sweep::Sweep sweep_;
  std::optional<sweep::Ledger> ledger_;
  std::optional<tokenizer::Vqvae> tokenizer_;
  std::string made_by_;  // its fingerprint
  std::optional<tokenizer::Vqvae> decoder_;  // of another precision, whose fingerprint is no longer the file's
  std::optional<evaluate::Inception> network_;
  evaluate::NetworkFacts facts_;
  std::optional<ImageSide> reference_;
  std::string reference_names_;  // its fingerprint
  Reference against_;            // of the first rank
  Json settings_;
  // Of the run that is being scored; of the first rank.
  fs::path part_;
  base::LockedFolder lock_;
  std::map<std::string, records::Score> figures_;
};

}  // namespace

ExitCode score_sweep(const SweepToScore& what, comm::Communicator& world) {
  return SweepScorer(what, world).score_all();
}

}  // namespace varscale::apps
