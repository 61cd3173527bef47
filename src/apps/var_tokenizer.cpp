// var_tokenizer: trains a multi-scale VQVAE on a folder of images, and judges one.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "base/command_line.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/progress.hpp"
#include "base/signals.hpp"
#include "data/image_batches.hpp"
#include "data/png.hpp"
#include "tokenizer/evaluate.hpp"
#include "tokenizer/train.hpp"

namespace varscale::apps {
namespace {

namespace fs = std::filesystem;
using base::ExitCode;
using base::UserError;
using tokenizer::ImageSource;
using tokenizer::TokenizerConfig;
using tokenizer::Vqvae;

constexpr const char* kAbout =
    "Trains the tokenizer (a multi-scale VQVAE) on a folder of images, and judges one.";

constexpr const char* kExamples = R"(
Examples:
  var_tokenizer train sweeps/quickstart_tokenizer.yaml --images images/train --out tok.safetensors
  var_tokenizer train my.yaml --images photos --out tok.safetensors --set train.steps=20000 --set train.batch=16
  var_tokenizer eval --tokenizer tok.safetensors --images images/val --picture scales.png

Started again after an interruption, train goes on from its last saved state and gives the same tokenizer.
Exit codes: 0 done, 2 bad input, 75 stopped by a signal with its state saved, others failure.)";

struct TrainArguments {
  fs::path config, images, out;
  std::vector<std::string> overrides;
  bool help_config = false, json = false;
};

struct EvalArguments {
  fs::path tokenizer, images, picture;
  int64_t limit = 0, batch = 32, columns = 8;
  bool json = false;
};

void print_settings() {
  for (const base::ConfigHelpLine& line : base::help_config<TokenizerConfig>()) {
    fmt::print("{:<28} {:<24} {}{}\n", line.key, line.default_value, line.help,
               line.range.empty() ? "" : fmt::format(" ({})", line.range));
  }
}

TokenizerConfig read_settings(const TrainArguments& a) {
  const base::Document document = base::Document::load(a.config, a.overrides);
  base::Faults faults;
  auto config = base::read_config<TokenizerConfig>(document.root(), faults);
  faults.refuse_unread(document);
  faults.throw_if_any();
  try {
    config.model.check();
  } catch (const UserError& error) {
    throw UserError("{}: {}", a.config.string(), error.what());
  }
  return config;
}

ImageSource source_of(const data::ImageBatches& images) {
  return {
      .count = images.size(),
      .fingerprint = images.set().fingerprint(),
      .batch = [&images](const std::vector<int64_t>& numbers) { return images.batch(numbers); }};
}

// Numbers of a window of steps, for the progress line.
struct Window {
  double mse = 0, vq_loss = 0;
  int64_t steps = 0, restarted = 0;
  void add(const tokenizer::TokenizerStep& facts) {
    mse += facts.mse, vq_loss += facts.vq_loss, restarted += facts.restarted, ++steps;
  }
  std::string words() const {
    const auto n = static_cast<double>(steps);
    return fmt::format("mse {:.5f} ({:.2f} dB), vq {:.4f}, {} codes restarted", mse / n,
                       10 * std::log10(4 * n / mse), vq_loss / n, restarted);
  }
};

void train(const TrainArguments& a) {
  const base::StopSignals stop;  // before any thread computes
  const TokenizerConfig config = read_settings(a);
  const data::ImageBatches images(data::ImageSet::open(a.images),
                                  {.side = config.model.image_side, .seed = config.train.seed},
                                  data::Crop::kCentre);
  tokenizer::TokenizerTrainer trainer(config, source_of(images));
  if (fs::exists(a.out)) {
    if (tokenizer::stored_training(a.out) == trainer.training_record()) {
      fmt::print("{}: already trained with these settings on these images\n", a.out.string());
      return;
    }
    throw UserError(
        "{} exists and was trained otherwise (settings or images differ); remove it, or give "
        "another "
        "--out",
        a.out.string());
  }
  const fs::path folder = a.out.has_parent_path() ? a.out.parent_path() : fs::path(".");
  base::require_writable_folder(folder);
  const fs::path state = a.out.string() + ".state";
  if (fs::exists(state)) {
    trainer.load_state(state);
    fmt::print("{}: going on at step {}\n", state.string(), trainer.steps_done());
  }

  const auto begin = std::chrono::steady_clock::now();
  auto last_saved = begin;
  const int64_t first_step = trainer.steps_done();
  constexpr int64_t kWindow = 20;
  Window window;
  base::Progress progress("tokenizer", config.train.steps, "steps");
  progress.set(first_step);
  while (!trainer.done()) {
    window.add(trainer.step());
    if (window.steps == kWindow) {
      progress.note(window.words());
      window = {};
    }
    progress.advance(1);
    const auto now = std::chrono::steady_clock::now();
    const bool due =
        std::chrono::duration<double>(now - last_saved).count() > 60 * config.train.save_every_min;
    if (due || stop.requested()) {
      trainer.save_state(state);
      last_saved = now;
    }
    if (stop.requested()) {
      throw base::Stopped(
          fmt::format("stopped by signal {} after step {} of {}; start again to go on",
                      stop.signal_number(), trainer.steps_done(), config.train.steps));
    }
  }
  progress.finish();
  const Vqvae result = trainer.finished();
  result.save(a.out, trainer.training_record());
  fs::remove(state);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const int64_t steps = config.train.steps - first_step;
  if (a.json) {
    fmt::print("{}\n",
               nlohmann::ordered_json{{"tokenizer", a.out.string()},
                                      {"fingerprint", result.fingerprint()},
                                      {"parameters", nn::count_elements(result.parameters())},
                                      {"steps", steps},
                                      {"step_s", seconds / static_cast<double>(steps)}}
                   .dump());
    return;
  }
  fmt::print("{}: {} parameters, {} steps in {} ({:.1f} ms a step)\n", a.out.string(),
             base::format_count(static_cast<double>(nn::count_elements(result.parameters()))),
             steps, base::format_duration(seconds), 1e3 * seconds / static_cast<double>(steps));
}

// One row an original image or a number of scales, one column an image.
void write_picture(const EvalArguments& a, const Vqvae& tokenizer, const ImageSource& images) {
  // Images from all over the folder, so that classes that lie one after another all show.
  const int64_t columns = std::min(a.columns, images.count);
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < columns; ++i) numbers.push_back(i * images.count / columns);
  const at::Tensor rows =
      at::cat(tokenizer::reconstructions_by_scale(tokenizer, images.batch(numbers)));
  constexpr int64_t kPixelsShown = 96;
  const int64_t factor = std::max<int64_t>(1, kPixelsShown / tokenizer.config().image_side);
  data::write_png(a.picture, data::enlarge(data::grid(data::to_u8_BHWC(rows), columns), factor));
}

void evaluate(const EvalArguments& a) {
  const Vqvae tokenizer = Vqvae::load(a.tokenizer);
  const data::ImageBatches images(data::ImageSet::open(a.images),
                                  {.side = tokenizer.config().image_side}, data::Crop::kCentre);
  const ImageSource source = source_of(images);
  const tokenizer::TokenizerReport report =
      tokenizer::evaluate(tokenizer, source, a.limit, a.batch);
  if (!a.picture.empty()) write_picture(a, tokenizer, source);
  if (a.json) {
    nlohmann::ordered_json json = report.json();
    json["fingerprint"] = tokenizer.fingerprint();
    fmt::print("{}\n", json.dump());
    return;
  }
  fmt::print(
      "{} images: PSNR {:.2f} dB, mean squared error {:.5f}, mean absolute error {:.4f} (range -1 "
      "to 1)\n",
      report.images, report.psnr_db, report.mse, report.l1);
  fmt::print("codes used {} of {} (perplexity {:.1f}), dead {}\n", report.all.used,
             report.all.codes, report.all.perplexity, report.dead_codes());
  for (size_t k = 0; k < report.scales.size(); ++k) {
    const int64_t side = tokenizer.config().scales[k];
    fmt::print("  scale {:>2} x {:<2}  {:>5} codes ({:5.1f} %), perplexity {:.1f}\n", side, side,
               report.scales[k].used, 100 * report.scales[k].used_share(),
               report.scales[k].perplexity);
  }
}

void add_train(CLI::App& app, std::function<void()>& work) {
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
      if (a->help_config) return print_settings();
      if (a->config.empty() || a->images.empty() || a->out.empty()) {
        throw UserError(
            "train needs a settings file, --images and --out (var_tokenizer train --help)");
      }
      train(*a);
    };
  });
}

void add_eval(CLI::App& app, std::function<void()>& work) {
  auto a = std::make_shared<EvalArguments>();
  CLI::App* command = app.add_subcommand("eval", "Reconstruction error and use of the codes");
  command->add_option("--tokenizer", a->tokenizer, "a tokenizer's file")->required();
  command
      ->add_option("--images", a->images, "images: one folder a class; the centre of each is used")
      ->required();
  command->add_option("--limit", a->limit, "judge on the first images only; 0: all")
      ->capture_default_str();
  command->add_option("--batch", a->batch, "images at a time")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--picture", a->picture,
                      "PNG: a row of images, then what 1, 2, ... all scales give");
  command->add_option("--columns", a->columns, "images in the picture")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_flag("--json", a->json, "print the figures as JSON");
  command->callback([a, &work] { work = [a] { evaluate(*a); }; });
}

ExitCode run(int argc, char** argv) {
  CLI::App app(kAbout, "var_tokenizer");
  app.footer(kExamples);
  app.require_subcommand(1);
  std::function<void()> work;
  add_train(app, work);
  add_eval(app, work);
  if (!base::parse_command_line(app, argc, argv)) return ExitCode::kDone;
  const data::VipsRuntime vips("var_tokenizer");
  work();
  return ExitCode::kDone;
}

}  // namespace
}  // namespace varscale::apps

int main(int argc, char** argv) {
  return varscale::base::run_main("var_tokenizer", [&] { return varscale::apps::run(argc, argv); });
}
