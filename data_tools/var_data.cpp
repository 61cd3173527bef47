// var_data: draw images, turn images into tokens, look into a token file, take weights in and out.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>

#include "base/command_line.hpp"
#include "base/error.hpp"
#include "base/progress.hpp"
#include "base/signals.hpp"
#include "comm/communicator.hpp"
#include "data/parallel_images.hpp"
#include "data/synth.hpp"
#include "data/tokenize.hpp"
#include "data/vips_runtime.hpp"
#include "export.hpp"
#include "import.hpp"
#include "inspect.hpp"

namespace varscale::data {
namespace {

using base::ExitCode;
using base::UserError;

constexpr const char* kAbout =
    "Images in, tokens out: draws test images, tokenizes folders, tars or lists of images, inspects the result; and "
    "weights of the public code in and out.";

constexpr const char* kExamples = R"(
Examples:
  var_data synth --out images --train 14000 --val 500 --side 32
  var_data tokenize --train images/train --val images/val --tokenizer tok.safetensors --out tokens.h5
  var_data tokenize --train photos --split 0.02 --tokenizer tok.safetensors --out tokens.h5 --crops 4
  var_data tokenize --train 'shards/train-{000..099}.tar' --val val.txt --tokenizer tok.safetensors --out t.h5 --plan
  launch/mpirun.sh -n 8 var_data tokenize ...        started again, it goes on where it stopped
  var_data inspect tokens.h5 --verify --picture rows.png
  var_data export results/quickstart/runs/d5-s0-1f3a9c --out d5.pth
  var_data import var_d16.pth --out d16.safetensors
  var_data import ar-ckpt-last.pth --part vae --out tok.safetensors

Exit codes: 0 done, 2 bad input, 75 stopped by a signal and to be started again, others failure.)";

void add_synth(CLI::App& app, std::function<ExitCode()>& work) {
  struct Options {
    std::filesystem::path out;
    SynthTree tree;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("synth",
                                         "Draw class-conditional dead-leaves images into "
                                         "OUT/train/<class>/*.png and OUT/val/<class>/*.png");
  command->add_option("--out", options->out, "folder to make; must not exist")->required();
  command->add_option("--train", options->tree.train, "training images, all classes together")
      ->capture_default_str();
  command->add_option("--val", options->tree.validation, "validation images")
      ->capture_default_str();
  command->add_option("--side", options->tree.side, "pixels, 8 to 1024")->capture_default_str();
  command->add_option("--seed", options->tree.seed, "another seed, other images")
      ->capture_default_str();
  command->callback([options, &work] {
    work = [options] {
      write_synth_tree(options->out, options->tree, default_threads());
      fmt::print("{}: {} training and {} validation images of {}x{} pixels in {} classes\n",
                 options->out.string(), options->tree.train, options->tree.validation,
                 options->tree.side, options->tree.side, kSynthClasses);
      return ExitCode::kDone;
    };
  });
}

struct TokenizeArguments {
  TokenizeOptions tokenize;
  std::filesystem::path tokenizer;
  std::string precision = "fp32";
  bool plan = false;
};

std::string crops_of(const records::TokenFileInfo& info) {
  return fmt::format("{} training images x {} crop{} and {} validation images", info.train_images, info.crops,
                     info.crops == 1 ? "" : "s", info.validation_images);
}

void print_skipped(const TokenizeOptions& options, const std::vector<CorruptImage>& skipped) {
  for (const CorruptImage& image : skipped) fmt::print("skipped: {}\n", image.reason);
  if (options.skip_corrupt) fmt::print("{} unreadable images skipped\n", skipped.size());
}

// Of one process, times the ranks of the launch.
void print_tokenize_plan(const TokenizeArguments& a, const ImageEncoder& encoder, int ranks) {
  const TokenizePlan plan = plan_tokenize(a.tokenize, encoder);
  print_skipped(a.tokenize, plan.skipped);
  const double rate = plan.rows_per_s * ranks;
  fmt::print("{}: {} in {} classes\n", a.tokenize.out.string(), crops_of(plan.info), plan.info.classes);
  fmt::print("{} rows of {} tokens, {}\n", plan.info.rows(), plan.info.tokens_per_image(),
             base::format_bytes(static_cast<double>(plan.file_bytes)));
  fmt::print("{} of encoding: {:.3g} rows/s on {} rank{} ({} of a row's work is decoding)\n",
             base::format_duration(static_cast<double>(plan.info.rows()) / rate), rate, ranks, ranks == 1 ? "" : "s",
             fmt::format("{:.0f} %", 100 * plan.decoding_share));
}

ExitCode run_tokenize(const TokenizeArguments& a) {
  const auto world = comm::open_world();
  return comm::end_together(*world, [&] {
    const base::StopSignals stop;  // before any thread computes
    std::optional<ImageEncoder> encoder;
    comm::agree_on(*world, "tokenizer", [&] { encoder = load_encoder(a.tokenizer, at::kCPU, a.precision); });
    const bool is_first = world->rank() == 0;
    if (a.plan) {
      comm::agree_on(*world, "plan", [&] {
        if (is_first) print_tokenize_plan(a, *encoder, world->size());
      });
      return ExitCode::kDone;
    }
    const TokenizeReport report = tokenize(a.tokenize, *encoder, *world, [&] { return stop.requested(); });
    if (is_first) print_skipped(a.tokenize, report.skipped);
    if (report.stopped) {
      if (is_first)
        fmt::print(stderr, "var_data: stopped after {} of {} rows, kept in {}.part; start it again to go on\n",
                   report.rows_done, report.info.rows(), a.tokenize.out.string());
      return ExitCode::kStopped;
    }
    if (is_first)
      fmt::print("{}: {}, {} tokens each\n", a.tokenize.out.string(), crops_of(report.info),
                 report.info.tokens_per_image());
    return ExitCode::kDone;
  });
}

void add_tokenize(CLI::App& app, std::function<ExitCode()>& work) {
  auto options = std::make_shared<TokenizeArguments>();
  TokenizeOptions& o = options->tokenize;
  CLI::App* command =
      app.add_subcommand("tokenize",
                         "Encode images into a token file; under mpirun by all ranks, and on from where it stopped");
  command
      ->add_option("--train", o.train,
                   "training images: one folder a class, tars (a file, a folder of them, or x-{000..099}.tar), or a "
                   "list of \"path label\"")
      ->required();
  CLI::Option* val = command->add_option(
      "--val", o.validation, "validation images: likewise, or a flat folder with --val-labels");
  command->add_option("--val-labels", o.validation_labels,
                      "text file: a label, or \"name label\", an image of --val");
  command
      ->add_option("--split", o.split,
                   "without --val: this part of --train becomes the validation set")
      ->capture_default_str()
      ->excludes(val);
  command->add_option("--seed", o.seed, "of the split and of random crops")->capture_default_str();
  command
      ->add_option("--tokenizer", options->tokenizer, "weights and configuration of the tokenizer")
      ->required();
  command->add_option("--out", o.out, "token file to write; complete or absent")->required();
  command->add_option("--crops", o.crops, "random crops of each training image")
      ->capture_default_str();
  command->add_flag("--always-resize", o.always_resize,
                    "resize and crop also images that have the right size already");
  command->add_flag("--skip-corrupt", o.skip_corrupt,
                    "leave unreadable images out and name them (reads all twice)");
  command->add_option("--batch", o.batch, "images encoded at a time")->capture_default_str();
  command
      ->add_option("--precision", options->precision,
                   "of the encoder: fp32, or bf16, whose codes differ where two are nearly as near")
      ->capture_default_str()
      ->check(CLI::IsMember({"fp32", "bf16"}));
  command->add_flag("--plan", options->plan, "print sizes and the time it will take, from the first images, and stop");
  command->callback([options, &work] { work = [options] { return run_tokenize(*options); }; });
}

void add_inspect(CLI::App& app, std::function<ExitCode()>& work) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command = app.add_subcommand(
      "inspect", "Show what a token file holds, and what its tokens cost without a model");
  command->add_option("FILE", options->file, "a token file")->required();
  command->add_flag("--json", options->json, "one JSON object instead of text");
  command->add_flag("--verify", options->verify, "check every token, the checksums and the fingerprint");
  auto* picture = command->add_option("--picture", options->picture,
                                      "write a few rows as the tokenizer decodes them, a PNG");
  command->add_option("--tokenizer", options->tokenizer, "its weights; without it, those that the file names")
      ->needs(picture);
  command->callback([options, &work] { work = [options] { return inspect(*options), ExitCode::kDone; }; });
}

constexpr const char* kScalesHelp = "sides of the token maps, as 1,2,3,4, where nothing else says them";

void add_import(CLI::App& app, std::function<ExitCode()>& work) {
  auto options = std::make_shared<ImportOptions>();
  CLI::App* command = app.add_subcommand(
      "import", "Turn weights of the public code (a VAR, a tokenizer, a trainer's checkpoint) into a file of ours");
  command->add_option("FILE", options->file, "a .pth or .safetensors file of a state dict, or a checkpoint")
      ->required();
  command->add_option("--out", options->out, "the .safetensors file to write; complete or absent")->required();
  command->add_option("--part", options->part, "of a checkpoint: its VAR or its tokenizer")
      ->check(CLI::IsMember({"var", "vae"}));
  command->add_option("--scales", options->scales, kScalesHelp)->delimiter(',');
  command->add_option("--heads", options->heads, "attention heads of a VAR without q/k norm")
      ->check(CLI::PositiveNumber);
  command->callback([options, &work] { work = [options] { return import_weights(*options), ExitCode::kDone; }; });
}

void add_export(CLI::App& app, std::function<ExitCode()>& work) {
  auto options = std::make_shared<ExportOptions>();
  CLI::App* command = app.add_subcommand(
      "export", "Write the weights of a run's checkpoint, or of a file of ours, as safetensors or for the public code");
  command
      ->add_option("FROM", options->from, "folder of a run (<sweep>/runs/<id>), a file of weights, or a tokenizer")
      ->required();
  command->add_option("--out", options->out, "the file to write; complete or absent")->required();
  command->add_option("--format", options->format, "safetensors or pth (default: pth where --out ends in .pth)")
      ->check(CLI::IsMember({"safetensors", "pth"}));
  command->add_option("--step", options->step, "of a run's checkpoint; 0: the newest")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--scales", options->scales, kScalesHelp)->delimiter(',');
  command->callback([options, &work] { work = [options] { return export_weights(*options), ExitCode::kDone; }; });
}

ExitCode run(int argc, char** argv) {
  CLI::App app(kAbout, "var_data");
  app.footer(kExamples);
  app.require_subcommand(1);
  std::function<ExitCode()> work;
  add_synth(app, work);
  add_tokenize(app, work);
  add_inspect(app, work);
  add_import(app, work);
  add_export(app, work);
  if (!base::parse_command_line(app, argc, argv)) return ExitCode::kDone;
  const VipsRuntime vips("var_data");
  return work();
}

}  // namespace
}  // namespace varscale::data

int main(int argc, char** argv) {
  return varscale::base::run_main("var_data", [&] { return varscale::data::run(argc, argv); });
}
