// var_tokenizer: trains a multi-scale VQVAE on a folder of images, and judges one.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/command_line.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/progress.hpp"
#include "base/signals.hpp"
#include "comm/communicator.hpp"
#include "data/image_batches.hpp"
#include "data/png.hpp"
#include "data/vips_runtime.hpp"
#include "evaluate/inception.hpp"
#include "feature_option.hpp"
#include "losses/lpips.hpp"
#include "tokenizer/evaluate.hpp"
#include "tokenizer_evaluation/judge.hpp"
#include "tokenizer_training/image_feed.hpp"
#include "tokenizer_training/run.hpp"

namespace varscale::apps {
namespace {

namespace fs = std::filesystem;
using base::ExitCode;
using base::UserError;
using tokenizer::ImageSource;
using tokenizer_training::TokenizerConfig;
using tokenizer::Vqvae;

constexpr const char* kAbout =
    "Trains the tokenizer (a multi-scale VQVAE) on a folder of images, and judges one.";

constexpr const char* kExamples = R"(
Examples:
  var_tokenizer train sweeps/quickstart_tokenizer.yaml --images images/train --out tok.safetensors
  var_tokenizer train my.yaml --images photos --out tok.safetensors --set train.steps=20000 --set train.batch=16
  mpirun -n 8 var_tokenizer train sweeps/tokenizer256.yaml --images imagenet/train --out tok256.safetensors
  var_tokenizer eval --tokenizer tok.safetensors --images images/val --picture scales.png
  mpirun -n 8 var_tokenizer eval --tokenizer tok.safetensors --images imagenet/val --lpips vgg16.pth --lpips heads.pth
               --features inception.pth --name inception-2015-12-05

Started again after an interruption, train goes on from its last saved state and gives the same tokenizer. It writes
its records beside the tokenizer (tok.h5).
Exit codes: 0 done, 2 bad input, 75 stopped by a signal with its state saved, others failure.)";

struct TrainArguments {
  fs::path config, images, out;
  std::vector<std::string> overrides;
  bool help_config = false, json = false;
};

struct EvalArguments {
  fs::path tokenizer, images, picture;
  int64_t limit = 0, batch = 32;
  std::optional<int64_t> columns;
  std::vector<std::string> lpips;  // files, or "made"
  std::string features, name;
  std::optional<uint64_t> seed;
  bool json = false;
};

void print_settings() {
  for (const base::ConfigHelpLine& line : base::help_config<TokenizerConfig>()) {
    fmt::print("{:<32} {:<24} {}{}\n", line.key, line.default_value, line.help,
               line.range.empty() ? "" : fmt::format(" ({})", line.range));
  }
}

TokenizerConfig read_settings(const TrainArguments& a) {
  base::Document document = base::Document::load(a.config, a.overrides);
  base::Faults faults;
  document.expand_environment(faults);
  auto config = base::read_config<TokenizerConfig>(document.root(), faults);
  faults.refuse_unread(document);
  faults.throw_if_any();
  try {
    config.check();
  } catch (const UserError& error) {
    throw UserError("{}: {}", a.config.string(), error.what());
  }
  return config;
}

// Why the tokenizer's figures cannot be laid beside published ones.
void say_what_is_missing(const TokenizerConfig& config) {
  if (config.loss.lpips == 0)
    fmt::print(stderr, "loss.lpips is 0: without a perceptual term the rFID compares with no published one\n");
  else if (config.loss.vgg_weights == "made")
    fmt::print(stderr, "loss.vgg_weights is made: with random weights the rFID compares with no published one\n");
}

ExitCode train(const TrainArguments& a) {
  const base::StopSignals stop;  // before any thread computes
  const auto world = comm::open_world();
  return comm::end_together(*world, [&] {
    TokenizerConfig config;
    std::optional<data::ImageBatches> images;
    comm::agree_on(*world, "settings and images", [&] {
      config = read_settings(a);
      images.emplace(data::ImageSet::open(a.images),
                     data::Preprocessing{.side = config.model.image_side, .seed = config.train.seed},
                     config.train.crop == "random" ? data::Crop::kRandom : data::Crop::kCentre);
    });
    const bool first = world->rank() == 0;
    if (first) say_what_is_missing(config);
    tokenizer_training::ImageFeed feed(*images);
    const tokenizer_training::TokenizerJob job{.config = config, .images = feed.source(), .out = a.out};
    const tokenizer_training::Outcome outcome = tokenizer_training::train_tokenizer(job, *world, stop);
    using State = tokenizer_training::Outcome::State;
    if (outcome.state == State::kStopped) {
      if (first)
        fmt::print(stderr, "var_tokenizer: stopped after step {} of {}; start again to go on\n", outcome.step,
                   config.train.steps);
      return ExitCode::kStopped;
    }
    if (!first) return ExitCode::kDone;
    if (outcome.state == State::kWasDone) {
      fmt::print("{}: already trained with these settings on these images\n", a.out.string());
      return ExitCode::kDone;
    }
    const double step_s = outcome.seconds / static_cast<double>(std::max<int64_t>(1, outcome.steps_here));
    if (a.json) {
      fmt::print("{}\n", nlohmann::ordered_json{{"tokenizer", a.out.string()},
                                                {"fingerprint", outcome.fingerprint},
                                                {"parameters", outcome.parameters},
                                                {"steps", outcome.steps_here},
                                                {"step_s", step_s}}
                             .dump());
    } else {
      fmt::print("{}: {} parameters, {} steps in {} ({:.1f} ms a step)\n", a.out.string(),
                 base::format_count(static_cast<double>(outcome.parameters)), outcome.steps_here,
                 base::format_duration(outcome.seconds), 1e3 * step_s);
    }
    return ExitCode::kDone;
  });
}

constexpr int64_t kColumns = 8;

// One row an original image or a number of scales, one column an image.
void write_picture(const EvalArguments& a, const Vqvae& tokenizer, const ImageSource& images) {
  // Images from all over the folder, so that classes that lie one after another all show.
  const int64_t columns = std::min(a.columns.value_or(kColumns), images.count);
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < columns; ++i) numbers.push_back(i * images.count / columns);
  const at::Tensor rows =
      at::cat(tokenizer::reconstructions_by_scale(tokenizer, images.load({numbers, std::vector<int64_t>(numbers.size(), 0)})));
  constexpr int64_t kPixelsShown = 96;
  const int64_t factor = std::max<int64_t>(1, kPixelsShown / tokenizer.config().image_side);
  data::write_png(a.picture, data::enlarge(data::grid(data::to_u8_BHWC(rows), columns), factor));
}

void refuse_without_effect(const EvalArguments& a) {
  const bool is_made = std::ranges::find(a.lpips, "made") != a.lpips.end(), is_random = a.features == "random";
  if (a.columns && a.picture.empty()) throw UserError("--columns {}: has an effect with --picture alone", *a.columns);
  if (!a.name.empty() && a.features.empty())
    throw UserError("--name {}: names the weights of --features, which is not given", a.name);
  if (a.seed && !is_made && !is_random)
    throw UserError("--seed {}: has an effect with --lpips made or --features random alone", *a.seed);
  if (is_made && a.lpips.size() > 1)
    throw UserError("--lpips made: needs no file; give it alone, or the files of the weights");
}

std::optional<losses::Lpips> lpips_of(const EvalArguments& a) {
  if (a.lpips.empty()) return std::nullopt;
  if (a.lpips.front() == "made") return losses::Lpips::hash_made(a.seed.value_or(0));
  std::vector<fs::path> files;
  for (const std::string& file : a.lpips) {
    if (!fs::is_regular_file(file))
      throw UserError(
          "--lpips {}: no such file; expected VGG16's weights under torchvision's names, with LPIPS's heads in the same "
          "file or in one of their own under a second --lpips, or `made` for seeded weights that need no file",
          file);
    files.emplace_back(file);
  }
  return losses::Lpips(losses::read_weights(files));
}

std::optional<evaluate::Inception> features_of(const EvalArguments& a) {
  if (a.features.empty()) return std::nullopt;
  const bool takes_seed = a.features == "random";  // otherwise it is that of --lpips made
  return feature_network({a.features, a.name, takes_seed ? a.seed : std::nullopt});
}

void print_use(const tokenizer::TokenizerReport& report, const std::vector<int64_t>& sides) {
  fmt::print("codes used {} of {} (perplexity {:.1f}), dead {}\n", report.all.used,
             report.all.codes, report.all.perplexity, report.dead_codes());
  for (size_t k = 0; k < report.scales.size(); ++k) {
    fmt::print("  scale {:>2} x {:<2}  {:>5} codes ({:5.1f} %), perplexity {:.1f}\n", sides[k], sides[k],
               report.scales[k].used, 100 * report.scales[k].used_share(),
               report.scales[k].perplexity);
  }
}

ExitCode evaluate_on_ranks(const EvalArguments& a) {
  const auto world = comm::open_world();
  return comm::end_together(*world, [&] {
    std::optional<Vqvae> tokenizer;
    std::optional<data::ImageBatches> images;
    std::optional<losses::Lpips> lpips;
    std::optional<evaluate::Inception> features;
    comm::agree_on(*world, "tokenizer, images and networks", [&] {
      refuse_without_effect(a);
      tokenizer.emplace(Vqvae::load(a.tokenizer));
      images.emplace(data::ImageSet::open(a.images), data::Preprocessing{.side = tokenizer->config().image_side},
                     data::Crop::kCentre);
      lpips = lpips_of(a);
      features = features_of(a);
    });
    tokenizer_training::ImageFeed feed(*images);
    const ImageSource source = feed.source();
    const bool first = world->rank() == 0;
    std::optional<base::Progress> progress;
    if (first && (lpips || features))
      progress.emplace("images", tokenizer::images_judged(source, a.limit), "images");
    const tokenizer_evaluation::JudgeOptions options{.limit = a.limit,
                                                     .batch = a.batch,
                                                     .lpips = lpips ? &*lpips : nullptr,
                                                     .features = features ? &*features : nullptr,
                                                     .advance = [&](int64_t count) {
                                                       if (progress) progress->advance(count);
                                                     }};
    const tokenizer_evaluation::Judgement judgement =
        tokenizer_evaluation::judge(*tokenizer, source, options, *world);
    if (progress) progress->finish();
    comm::agree_on(*world, "picture", [&] {
      if (first && !a.picture.empty()) write_picture(a, *tokenizer, source);
    });
    if (!first) return ExitCode::kDone;
    if (a.json) {
      nlohmann::ordered_json json = judgement.json();
      json["fingerprint"] = tokenizer->fingerprint();
      fmt::print("{}\n", json.dump());
    } else {
      fmt::print("{}", judgement.words());
      print_use(judgement.report, tokenizer->config().scales);
    }
    return ExitCode::kDone;
  });
}

void add_train(CLI::App& app, std::function<ExitCode()>& work) {
  auto a = std::make_shared<TrainArguments>();
  CLI::App* command =
      app.add_subcommand("train", "Train a tokenizer on a class-per-folder tree of images");
  command->add_option("FILE,--config", a->config, "settings, as sweeps/quickstart_tokenizer.yaml");
  command->add_option("--images", a->images, "training images: one folder a class");
  command->add_option("--out", a->out,
                      "the tokenizer to write; its state lies beside it while it trains");
  command->add_option("--set", a->overrides,
                      "a setting over the file's, as train.steps=3200; may be repeated");
  command->add_flag("--help-config", a->help_config,
                    "list every setting with its default and range");
  command->add_flag("--json", a->json, "print the result as JSON");
  command->callback([a, &work] {
    work = [a] {
      if (a->help_config) {
        print_settings();
        return ExitCode::kDone;
      }
      if (a->config.empty() || a->images.empty() || a->out.empty()) {
        throw UserError(
            "train needs a settings file, --images and --out (var_tokenizer train --help)");
      }
      return train(*a);
    };
  });
}

void add_eval(CLI::App& app, std::function<ExitCode()>& work) {
  auto a = std::make_shared<EvalArguments>();
  CLI::App* command = app.add_subcommand(
      "eval", "Reconstruction error, SSIM and use of the codes; LPIPS and rFID through networks you give");
  command->add_option("--tokenizer", a->tokenizer, "a tokenizer's file")->required();
  command
      ->add_option("--images", a->images, "images: one folder a class; the centre of each is used")
      ->required();
  command->add_option("--limit", a->limit, "judge on the first images only; 0: all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--batch", a->batch, "images at a time; changes the last bits")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--lpips", a->lpips,
                      "weights of VGG16 with LPIPS's heads, .pth or .safetensors, in one file or two (give it twice); "
                      "made: seeded weights, whose distance compares with no published one");
  command->add_option("--features", a->features,
                      "network of the rFID: the FID Inception v3, .pth or .safetensors; random: seeded weights, for an "
                      "rFD-random");
  command->add_option("--name", a->name,
                      "what the file of --features is; inception-2015-12-05 makes the distance an rFID, on your word");
  command->add_option("--seed", a->seed, "of --lpips made and --features random (default 0)");
  command->add_option("--picture", a->picture,
                      "PNG: a row of images, then what 1, 2, ... all scales give");
  command->add_option("--columns", a->columns, "images in the picture (default 8)")
      ->check(CLI::PositiveNumber);
  command->add_flag("--json", a->json, "print the figures as JSON");
  command->callback([a, &work] { work = [a] { return evaluate_on_ranks(*a); }; });
}

ExitCode run(int argc, char** argv) {
  CLI::App app(kAbout, "var_tokenizer");
  app.footer(kExamples);
  app.require_subcommand(1);
  std::function<ExitCode()> work;
  add_train(app, work);
  add_eval(app, work);
  if (!base::parse_command_line(app, argc, argv)) return ExitCode::kDone;
  const data::VipsRuntime vips("var_tokenizer");
  return work();
}

}  // namespace
}  // namespace varscale::apps

int main(int argc, char** argv) {
  return varscale::base::run_main("var_tokenizer", [&] { return varscale::apps::run(argc, argv); });
}
