// var_data: draw images, turn images into tokens, look into a token file, take weights in and out.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "base/command_line.hpp"
#include "base/error.hpp"
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
    "Images in, tokens out: draws test images, tokenizes a folder of images, inspects the result; and weights of the "
    "public code in and out.";

constexpr const char* kExamples = R"(
Examples:
  var_data synth --out images --train 14000 --val 500 --side 32
  var_data tokenize --train images/train --val images/val --tokenizer tok.safetensors --out tokens.h5
  var_data tokenize --train photos --split 0.02 --tokenizer tok.safetensors --out tokens.h5 --crops 4
  var_data inspect tokens.h5 --verify
  var_data export results/quickstart/runs/d5-s0-1f3a9c --out d5.pth
  var_data import var_d16.pth --out d16.safetensors
  var_data import ar-ckpt-last.pth --part vae --out tok.safetensors

Exit codes: 0 done, 2 bad input, others failure.)";

void add_synth(CLI::App& app, std::function<void()>& work) {
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
    };
  });
}

void run_tokenize(const TokenizeOptions& options, const std::filesystem::path& tokenizer) {
  const TokenizeReport report = tokenize(options, load_encoder(tokenizer));
  for (const CorruptImage& image : report.skipped) fmt::print("skipped: {}\n", image.reason);
  if (options.skip_corrupt) fmt::print("{} unreadable images skipped\n", report.skipped.size());
  fmt::print("{}: {} training images x {} crop{} and {} validation images, {} tokens each\n",
             options.out.string(), report.info.train_images, report.info.crops,
             report.info.crops == 1 ? "" : "s", report.info.validation_images,
             report.info.tokens_per_image());
}

void add_tokenize(CLI::App& app, std::function<void()>& work) {
  struct Options {
    TokenizeOptions tokenize;
    std::filesystem::path tokenizer;
  };
  auto options = std::make_shared<Options>();
  TokenizeOptions& o = options->tokenize;
  CLI::App* command =
      app.add_subcommand("tokenize", "Encode a class-per-folder tree of images into a token file");
  command->add_option("--train", o.train, "training images: one folder a class")->required();
  CLI::Option* val = command->add_option(
      "--val", o.validation, "validation images: the same tree, or flat with --val-labels");
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
  command->callback([options, &work] {
    work = [options] { run_tokenize(options->tokenize, options->tokenizer); };
  });
}

void add_inspect(CLI::App& app, std::function<void()>& work) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command = app.add_subcommand(
      "inspect", "Show what a token file holds, and what its tokens cost without a model");
  command->add_option("FILE", options->file, "a token file")->required();
  command->add_flag("--json", options->json, "one JSON object instead of text");
  command->add_flag("--verify", options->verify, "check every token and the fingerprint");
  command->callback([options, &work] { work = [options] { inspect(*options); }; });
}

constexpr const char* kScalesHelp = "sides of the token maps, as 1,2,3,4, where nothing else says them";

void add_import(CLI::App& app, std::function<void()>& work) {
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
  command->callback([options, &work] { work = [options] { import_weights(*options); }; });
}

void add_export(CLI::App& app, std::function<void()>& work) {
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
  command->callback([options, &work] { work = [options] { export_weights(*options); }; });
}

ExitCode run(int argc, char** argv) {
  CLI::App app(kAbout, "var_data");
  app.footer(kExamples);
  app.require_subcommand(1);
  std::function<void()> work;
  add_synth(app, work);
  add_tokenize(app, work);
  add_inspect(app, work);
  add_import(app, work);
  add_export(app, work);
  if (!base::parse_command_line(app, argc, argv)) return ExitCode::kDone;
  const VipsRuntime vips("var_data");
  work();
  return ExitCode::kDone;
}

}  // namespace
}  // namespace varscale::data

int main(int argc, char** argv) {
  return varscale::base::run_main("var_data", [&] { return varscale::data::run(argc, argv); });
}
