// var_sample: images from a trained run, one row a class, with a caption that says how they were
// made.
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/command_line.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/progress.hpp"
#include "checkpoint/checkpoint.hpp"
#include "data/png.hpp"
#include "generate/sampler.hpp"
#include "models/var/model.hpp"
#include "records/token_file.hpp"
#include "sweep/identity.hpp"
#include "sweep/run_config.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::apps {
namespace {

namespace fs = std::filesystem;
using base::ExitCode;
using base::UserError;

constexpr const char* kAbout =
    "Draws images from the newest checkpoint of a run into one PNG, a row a class, and writes a "
    "JSON file\n"
    "beside it that says how they were made. An image depends on the run, the settings, the seed, "
    "its class\n"
    "and its column alone: other classes or more columns leave it as it is.";

constexpr const char* kExamples = R"(
Examples:
  var_sample results/quickstart/runs/d5-s0-1f3a9c --tokenizer results/quickstart/tokenizer.safetensors
  var_sample RUN --tokenizer TOK --classes 207,360,387 --per-class 6 --cfg 4 --top-k 900 --top-p 0.95

Exit codes: 0 done, 2 bad input, others failure.)";

// Image j of class c has the index c x this + j, whatever else is drawn.
constexpr int64_t kImagesPerClass = 1'000'000;
constexpr int64_t kClassesByDefault = 16;
constexpr int64_t kPixelsShown = 96;  // smaller images are enlarged by a whole factor

struct Arguments {
  fs::path run, tokenizer, tokens, out = "samples.png";
  std::string classes, precision = "fp32";
  int64_t per_class = 8;
  generate::SamplingOptions sampling;
  bool json = false;
};

// Returns false where only help was asked for.
bool parse(int argc, char** argv, Arguments& a) {
  CLI::App app(kAbout, "var_sample");
  app.footer(kExamples);
  app.add_option("RUN", a.run, "folder of a run: <sweep>/runs/<id>")->required();
  app.add_option("--tokenizer", a.tokenizer, "the tokenizer that made the run's tokens")
      ->required();
  app.add_option("--tokens", a.tokens, "the run's token file, if it was moved");
  app.add_option(
      "--classes", a.classes,
      fmt::format("all, or numbers and names, as 0,3,7 (default: all, at most the first {})",
                  kClassesByDefault));
  app.add_option("--per-class", a.per_class, "images of each class (default 8)")
      ->check(CLI::Range(int64_t{1}, kImagesPerClass));
  app.add_option("--cfg", a.sampling.cfg, "end of the guidance ramp; 0: no guidance (default 1.5)");
  app.add_option("--top-k", a.sampling.top_k, "keep the k likeliest tokens; 0: all (default 0)");
  app.add_option("--top-p", a.sampling.top_p,
                 "keep the likeliest tokens of this total; 0: all (default 0)");
  app.add_option("--temperature", a.sampling.temperature, "divides the logits (default 1)");
  app.add_option("--seed", a.sampling.seed, "of the draws (default 0)");
  app.add_option("--group", a.sampling.group,
                 "images computed together; changes roundings (default 8)");
  app.add_option("--precision", a.precision, "of the matrix products: fp32 or bf16 (default fp32)")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--out", a.out,
                 "the picture; its caption has the same name and .json (default samples.png)");
  app.add_flag("--json", a.json, "print the caption as JSON instead of words");
  if (!base::parse_command_line(app, argc, argv)) return false;
  if (a.out.extension() != ".png")
    throw UserError("--out {}: expected a name that ends in .png", a.out.string());
  a.sampling.compute = a.precision == "bf16" ? at::kBFloat16 : at::kFloat;
  return true;
}

// The settings a run was trained with, and its name.
struct RunOnDisk {
  std::string id;
  sweep::RunConfig config;
};

RunOnDisk read_run_folder(const fs::path& folder) {
  const fs::path path = folder / "config.yaml";
  if (!fs::exists(path))
    throw UserError("{}: no config.yaml here; expected the folder of a run, <sweep>/runs/<id>",
                    folder.string());
  const base::Document document = base::Document::load(path);
  base::Faults faults;
  RunOnDisk run;
  run.id = document.root().child("id").as_string(faults, folder.filename().string());
  document.root().child("identity").mark_read();
  run.config = base::read_config<sweep::RunConfig>(document.root(), faults);
  faults.refuse_unread(document);
  faults.throw_if_any();
  return run;
}

records::TokenFile open_tokens(const Arguments& a, const RunOnDisk& run) {
  const fs::path path = a.tokens.empty() ? fs::path(run.config.tokens) : a.tokens;
  if (a.tokens.empty() && !fs::exists(path))
    throw UserError("{}: its token file {} is not there; give its present place with --tokens",
                    run.id, path.string());
  return records::TokenFile(path);
}

int64_t class_of(const std::string& word, const records::TokenFileInfo& info) {
  int64_t number = -1;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error == std::errc() && end == word.data() + word.size()) {
    if (number >= 0 && number < info.classes) return number;
    throw UserError("--classes: {} is not a class; expected 0 to {}", number, info.classes - 1);
  }
  const auto found = std::ranges::find(info.class_names, word);
  if (found != info.class_names.end()) return found - info.class_names.begin();
  throw UserError("--classes: no class is named {}{}", word,
                  base::did_you_mean(word, info.class_names));
}

std::vector<int64_t> classes_of(const std::string& list, const records::TokenFileInfo& info) {
  std::vector<int64_t> classes;
  if (list.empty() || list == "all") {
    const int64_t count = list.empty() ? std::min(info.classes, kClassesByDefault) : info.classes;
    for (int64_t c = 0; c < count; ++c) classes.push_back(c);
    return classes;
  }
  for (const std::string& word : CLI::detail::split(list, ',')) {
    classes.push_back(class_of(word, info));
    if (std::ranges::count(classes, classes.back()) > 1)
      throw UserError("--classes: {} is named twice", classes.back());
  }
  return classes;
}

// The newest weights of the run; refuses those trained on other tokens.
int64_t load_newest(const fs::path& run, const records::TokenFile& tokens,
                    const models::Var& model) {
  const checkpoint::CheckpointFolder checkpoints(run / "checkpoints", /*keep=*/1);
  const std::optional<int64_t> step = checkpoints.latest();
  if (!step) throw UserError("{}: the run has no checkpoint yet", run.string());
  const records::Facts facts = checkpoints.rows(*step).facts;
  const auto trained_on = facts.find("tokens_fingerprint");
  if (trained_on != facts.end() && trained_on->second != records::Fact(tokens.fingerprint()))
    throw UserError("{}: the run was trained on other tokens than {} holds", run.string(),
                    tokens.path().string());
  checkpoints.load_weights(*step, model.parameters());
  return *step;
}

nlohmann::ordered_json caption_of(const Arguments& a, const RunOnDisk& run,
                                  const sweep::TokenFacts& facts,
                                  const std::vector<int64_t>& classes,
                                  const records::TokenFileInfo& info, int64_t step,
                                  int64_t enlarged) {
  const generate::SamplingOptions& s = a.sampling;
  std::string choice = s.top_k > 0 ? fmt::format(", top-k {}", s.top_k) : "";
  if (s.top_p > 0) choice += fmt::format(", top-p {:g}", s.top_p);
  if (s.temperature != 1) choice += fmt::format(", temperature {:g}", s.temperature);
  nlohmann::ordered_json names = nlohmann::ordered_json::array();
  for (const int64_t c : classes) {
    names.push_back(c < static_cast<int64_t>(info.class_names.size()) ? info.class_names[c]
                                                                      : fmt::format("{}", c));
  }
  nlohmann::ordered_json caption;
  caption["caption"] = fmt::format(
      "Samples of run {} (depth {}) after {} of {} steps, a row a class: guidance {:g} at the last "
      "map{}, "
      "seed {}; not selected.",
      run.id, run.config.model.depth, step, sweep::steps_of(run.config), s.cfg, choice, s.seed);
  caption["run"] = run.id;
  caption["depth"] = run.config.model.depth;
  caption["step"] = step;
  caption["images_seen"] = step * run.config.train.batch;
  caption["tokenizer"] = info.tokenizer_fingerprint;
  caption["scales"] = facts.space.scales.sides();
  caption["image_side"] = info.image_side;
  caption["enlarged"] = enlarged;
  caption["classes"] = classes;
  caption["class_names"] = std::move(names);
  caption["per_class"] = a.per_class;
  caption["images_per_class_index"] = kImagesPerClass;
  caption["cfg"] = s.cfg;
  caption["cfg_rule"] = "logits (1 + t) cond - t uncond, t = cfg k / (S - 1)";
  caption["top_k"] = s.top_k;
  caption["top_p"] = s.top_p;
  caption["temperature"] = s.temperature;
  caption["seed"] = s.seed;
  caption["group"] = s.group;
  caption["precision"] = a.precision;
  caption["threads"] = at::get_num_threads();
  return caption;
}

ExitCode run(int argc, char** argv) {
  Arguments a;
  if (!parse(argc, argv, a)) return ExitCode::kDone;

  const RunOnDisk on_disk = read_run_folder(a.run);
  const records::TokenFile tokens = open_tokens(a, on_disk);
  const records::TokenFileInfo& info = tokens.info();
  const std::vector<int64_t> classes = classes_of(a.classes, info);
  a.sampling.check(info.vocabulary);
  const tokenizer::Vqvae tokenizer = tokenizer::Vqvae::load(a.tokenizer);
  if (tokenizer.fingerprint() != info.tokenizer_fingerprint)
    throw UserError("{}: not the tokenizer that made {}", a.tokenizer.string(),
                    tokens.path().string());
  const sweep::TokenFacts facts = sweep::facts_of(tokens);
  const models::Var model(sweep::shape_of(on_disk.config, facts));
  const int64_t step = load_newest(a.run, tokens, model);
  base::require_writable_folder(a.out.has_parent_path() ? a.out.parent_path() : fs::path("."));

  std::vector<generate::Request> requests;
  for (const int64_t c : classes) {
    for (int64_t j = 0; j < a.per_class; ++j)
      requests.push_back({.image = c * kImagesPerClass + j, .label = c});
  }
  base::Progress progress("sample", static_cast<int64_t>(requests.size()), "images");
  const generate::Sampler sampler(model, tokenizer.quantizer(), a.sampling);
  const generate::Samples samples =
      sampler.sample(requests, {}, [&](int64_t images) { progress.advance(images); });
  progress.finish();

  const data::VipsRuntime vips("var_sample");
  const at::Tensor images_u8_BHWC =
      data::to_u8_BHWC(generate::decode_each(tokenizer, samples.f_hat_BEHW));
  const int64_t enlarged = std::max<int64_t>(1, kPixelsShown / info.image_side);
  const at::Tensor sheet = data::enlarge(data::grid(images_u8_BHWC, a.per_class), enlarged);
  const auto caption = caption_of(a, on_disk, facts, classes, info, step, enlarged);
  data::write_png(a.out, sheet);
  const fs::path caption_path = fs::path(a.out).replace_extension(".json");
  base::write_file_atomic(caption_path, caption.dump(2) + "\n");
  if (a.json) {
    fmt::print("{}\n", caption.dump(2));
  } else {
    fmt::print("{}\n{}\n", a.out.string(), caption["caption"].get<std::string>());
  }
  return ExitCode::kDone;
}

}  // namespace
}  // namespace varscale::apps

int main(int argc, char** argv) {
  return varscale::base::run_main("var_sample", [&] { return varscale::apps::run(argc, argv); });
}
