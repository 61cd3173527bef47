// var_eval: how far one set of images is from another; what a network makes of a set, kept for later; and the scores of
// a sweep's runs.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "base/command_line.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/progress.hpp"
#include "comm/communicator.hpp"
#include "data/vips_runtime.hpp"
#include "evaluate/comparison.hpp"
#include "evaluate/image_features.hpp"
#include "evaluate/inception.hpp"
#include "feature_option.hpp"
#include "image_side.hpp"
#include "records/feature_file.hpp"
#include "sweep_scores.hpp"

namespace varscale::apps {
namespace {

namespace fs = std::filesystem;
using base::ExitCode;
using base::UserError;
using evaluate::Inception;

constexpr const char* kAbout =
    "Measures sets of images. Every figure comes with the network it was taken through. Ranks of a launch divide the\n"
    "images; the figures do not depend on their number.";

constexpr const char* kExamples = R"(
Examples:
  var_eval fd --reference images/val --samples samples --features random
  var_eval fd --reference images/val --samples samples --features inception.pth --name inception-2015-12-05
  var_eval fd --reference VIRTUAL_imagenet256_labeled.npz --samples samples.npz --features inception.pth
  launch/mpirun.sh -n 8 var_eval features --images images/val --features inception.pth --out val.h5
  var_eval fd --reference val.h5 --samples samples --features inception.pth
  launch/mpirun.sh -n 8 var_eval sweep sweeps/depth.yaml

Exit codes: 0 done, 2 bad input, 75 stopped by a signal and to be started again, others failure.)";

constexpr int64_t kBatchByDefault = 16;

struct Arguments {
  // fd
  fs::path reference, samples;
  bool json = false;
  // features
  fs::path images, out;
  // both
  std::string features, name;
  std::optional<uint64_t> seed;
  std::optional<int64_t> batch;
  // sweep
  SweepToScore sweep;

  FeatureOption option() const { return {.features = features, .name = name, .seed = seed}; }
};

void refuse_what_files_settle(const Arguments& a) {
  constexpr const char* kWhy = "has no effect where neither set has images to look at";
  if (!a.features.empty()) throw UserError("--features {}: {}", a.features, kWhy);
  if (!a.name.empty()) throw UserError("--name {}: {}", a.name, kWhy);
  if (a.seed) throw UserError("--seed {}: {}", *a.seed, kWhy);
  if (a.batch) throw UserError("--batch {}: {}", *a.batch, kWhy);
}

// What the features of both sides are of. `network` is empty where neither has images to look at.
struct Through {
  std::optional<Inception> network;
  evaluate::NetworkFacts facts;
  int64_t dimension = 0, spatial_dimension = 0;  // of the features
};

Through network_between(const Arguments& a, const ImageSide& reference, const ImageSide& samples) {
  Through through;
  if (reference.rows.count == 0 && samples.rows.count == 0) refuse_what_files_settle(a);
  else through.network.emplace(feature_network(a.option()));
  through.facts = network_of_sides(a.option(), through.network ? &*through.network : nullptr, {&reference, &samples});
  through.dimension = through.network ? through.network->dimension() : samples.stored->info().features;
  through.spatial_dimension = through.network ? through.network->spatial_dimension() : samples.stored->info().spatial;
  return through;
}

std::string reference_words(const ImageSide& reference) {
  std::string words;
  if (reference.has_statistics()) words = fmt::format("reference statistics of {}, ", reference.path.string());
  if (reference.size() > 0)
    words += fmt::format("{} reference images in {}, ", reference.size(), reference.path.string());
  return words;
}

base::Progress progress_of(const char* what, int64_t images, const comm::Communicator& world) {
  using Style = base::Progress::Style;
  return base::Progress(what, images, "images", world.rank() == 0 ? Style::kAuto : Style::kSilent);
}

// Of the first rank.
evaluate::ImageFeatures features_of(const char* what, const ImageSide& side, const Through& through, int64_t batch,
                                    comm::Communicator& world) {
  if (side.stored && world.rank() != 0) return {{}, evaluate::GaussianStatistics(1)};
  if (side.stored) return evaluate::stored_features(*side.stored);
  base::Progress progress = progress_of(what, side.size(), world);
  evaluate::ImageFeatures features = evaluate::features_of(*through.network, side.rows, batch, world,
                                                           [&](int64_t count) { progress.advance(count); });
  progress.finish();
  return features;
}

void compare_sets(const Arguments& a, comm::Communicator& world) {
  std::optional<ImageSide> reference, samples;
  Through through;
  Reference against;
  comm::agree_on(world, "sets", [&] {
    reference.emplace(open_image_side("--reference", a.reference));
    samples.emplace(open_image_side("--samples", a.samples));
    if (samples->size() == 0)
      throw UserError("--samples {}: holds statistics, but no images (arr_0), which the samples must be",
                      a.samples.string());
    if (reference->width > 0 && (reference->width != samples->width || reference->height != samples->height))
      throw UserError("{} holds images of {} x {} pixels, {} of {} x {}; all images must have one size",
                      a.reference.string(), reference->width, reference->height, a.samples.string(), samples->width,
                      samples->height);
    through = network_between(a, *reference, *samples);
    // Before any image is looked at: the file may be refused.
    if (world.rank() == 0) against.take_statistics(*reference, through.dimension, through.spatial_dimension);
  });
  const int64_t batch = a.batch.value_or(kBatchByDefault);
  if (reference->size() > 0) against.features.emplace(features_of("reference", *reference, through, batch, world));
  const evaluate::ImageFeatures sample_features = features_of("samples", *samples, through, batch, world);
  if (world.rank() != 0) return;
  const evaluate::Comparison result = against.compare(through.facts, sample_features);
  if (a.json) {
    nlohmann::ordered_json json = result.json();
    json["reference"] = a.reference.string();
    json["samples"] = a.samples.string();
    json["width"] = samples->width;
    json["height"] = samples->height;
    fmt::print("{}\n", json.dump(2));
    return;
  }
  fmt::print("{}{} samples in {}, {} x {} pixels\n{}", reference_words(*reference), samples->size(), a.samples.string(),
             samples->width, samples->height, result.words());
  if (through.facts.is_random)
    fmt::print("random weights: no published number compares with these; FID and IS need {}\n", kFeatureFile);
}

void keep_features(const Arguments& a, comm::Communicator& world) {
  std::optional<ImageSide> images;
  std::optional<Inception> network;
  comm::agree_on(world, "images", [&] {
    if (a.out.extension() != ".h5")
      throw UserError("--out {}: expected a name that ends in .h5", a.out.string());
    if (world.rank() == 0)
      base::require_writable_folder(a.out.has_parent_path() ? a.out.parent_path() : fs::path("."));
    images.emplace(open_image_side("--images", a.images));
    if (images->rows.count == 0)
      throw UserError("--images {}: {}", a.images.string(),
                      images->stored ? "holds features, no images" : "holds statistics, but no images (arr_0)");
    network.emplace(feature_network(a.option()));
  });
  records::FeatureFileInfo info;
  info.group = a.batch.value_or(kBatchByDefault);
  info.images_path = a.images.string();
  info.width = images->width, info.height = images->height;
  comm::agree_on(world, "names", [&] {
    if (world.rank() == 0) info.images_fingerprint = images->fingerprint();
  });
  base::Progress progress = progress_of("features", images->size(), world);
  evaluate::write_features(a.out, *network, images->rows, info, world,
                           [&](int64_t count) { progress.advance(count); });
  progress.finish();
  if (world.rank() == 0)
    fmt::print("{}: features of {} images in {} through {}\n", a.out.string(), images->size(), a.images.string(),
               words(network->facts()));
}

void add_network(CLI::App& command, Arguments& a) {
  command.add_option("--features", a.features, "the network's weight file, or random");
  command.add_option("--name", a.name,
                     "what the weight file is; inception-2015-12-05 makes the distance an FID, on your word");
  command.add_option("--seed", a.seed, "of random weights (default 0)");
  command.add_option("--batch", a.batch,
                     fmt::format("images at a time; changes the last bits (default {})", kBatchByDefault))
      ->check(CLI::PositiveNumber);
}

ExitCode run(int argc, char** argv) {
  CLI::App app(kAbout, "var_eval");
  app.footer(kExamples);
  app.require_subcommand(1);
  Arguments a;
  CLI::App* fd =
      app.add_subcommand("fd", "Fréchet distances, KID, precision and recall of samples against a reference");
  fd->add_option("--reference", a.reference,
                 "folder of images, or of class folders with images; an .npz file of images (arr_0), statistics (mu, "
                 "sigma) or both; or an .h5 file of `var_eval features`")
      ->required();
  fd->add_option("--samples", a.samples, "images to be judged: a folder, an .npz file with arr_0, or an .h5 file")
      ->required();
  add_network(*fd, a);
  fd->add_flag("--json", a.json, "print the figures as JSON");
  CLI::App* features = app.add_subcommand("features", "keeps what the network makes of a folder's images in a file");
  features
      ->add_option("--images", a.images,
                   "folder of images, or of class folders with images; or an .npz file with arr_0")
      ->required();
  features->add_option("--out", a.out, "the file, .h5")->required();
  add_network(*features, a);
  CLI::App* sweep = app.add_subcommand(
      "sweep", "samples every finished run of a sweep and scores it, as the section evaluate of the file says");
  sweep->add_option("FILE", a.sweep.file, "the sweep file")->required();
  sweep->add_option("--set", a.sweep.overrides, "override a key of the file: evaluate.images=1000")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  sweep->add_flag("--json", a.sweep.json, "print the figures as JSON");
  if (!base::parse_command_line(app, argc, argv)) return ExitCode::kDone;
  const auto world = comm::open_world();
  return comm::end_together(*world, [&] {
    if (sweep->parsed()) return score_sweep(a.sweep, *world);
    const data::VipsRuntime vips("var_eval");
    if (features->parsed()) keep_features(a, *world);
    else compare_sets(a, *world);
    return ExitCode::kDone;
  });
}

}  // namespace
}  // namespace varscale::apps

int main(int argc, char** argv) {
  return varscale::base::run_main("var_eval", [&] { return varscale::apps::run(argc, argv); });
}
