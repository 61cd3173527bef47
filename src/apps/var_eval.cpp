// var_eval: how far one set of images is from another.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/command_line.hpp"
#include "base/error.hpp"
#include "base/progress.hpp"
#include "data/vips_runtime.hpp"
#include "evaluate/comparison.hpp"
#include "evaluate/image_folder.hpp"
#include "evaluate/inception.hpp"
#include "feature_option.hpp"

namespace varscale::apps {
namespace {

namespace fs = std::filesystem;
using base::ExitCode;
using base::UserError;
using evaluate::ImageFolder;
using evaluate::Inception;

constexpr const char* kAbout = "Measures sets of images. Every figure comes with the network it was taken through.";

constexpr const char* kExamples = R"(
Examples:
  var_eval fd --reference images/val --samples samples --features random
  var_eval fd --reference images/val --samples samples --features inception.pth --name inception-2015-12-05

Exit codes: 0 done, 2 bad input, others failure.)";

struct Arguments {
  fs::path reference, samples;
  std::string features, name;
  std::optional<uint64_t> seed;
  int64_t batch = 16;
  bool json = false;
};

ImageFolder open(const char* option, const fs::path& folder) {
  ImageFolder images = ImageFolder::open(folder);
  if (images.size() < evaluate::fewest_images())
    throw UserError("{} {}: holds {} images, expected at least {}", option, folder.string(), images.size(),
                    evaluate::fewest_images());
  return images;
}

evaluate::ImageFeatures features_of(const char* what, const Inception& network, const ImageFolder& images,
                                    int64_t batch) {
  base::Progress progress(what, images.size(), "images");
  evaluate::ImageFeatures features = evaluate::features_of(
      network, {images.size(), [&](int64_t begin, int64_t count) { return images.batch(begin, count); }}, batch,
      [&](int64_t count) { progress.advance(count); });
  progress.finish();
  return features;
}

void compare_folders(const Arguments& a) {
  const ImageFolder reference = open("--reference", a.reference), samples = open("--samples", a.samples);
  if (reference.width() != samples.width() || reference.height() != samples.height())
    throw UserError("{} holds images of {} x {} pixels, {} of {} x {}; all images must have one size",
                    a.reference.string(), reference.width(), reference.height(), a.samples.string(), samples.width(),
                    samples.height());
  const Inception network = feature_network({a.features, a.name, a.seed});
  const evaluate::ImageFeatures reference_features = features_of("reference", network, reference, a.batch);
  const evaluate::ImageFeatures sample_features = features_of("samples", network, samples, a.batch);
  evaluate::Comparison result = evaluate::compare(network, reference_features, sample_features);
  if (network.name() == evaluate::kFidNetwork)
    result.inception_score = evaluate::shuffled_inception_score(network.logits(sample_features.features_ND));
  if (a.json) {
    nlohmann::ordered_json json = result.json();
    json["reference"] = a.reference.string();
    json["samples"] = a.samples.string();
    json["width"] = reference.width();
    json["height"] = reference.height();
    fmt::print("{}\n", json.dump(2));
    return;
  }
  fmt::print("{} reference images in {}, {} samples in {}, {} x {} pixels\n{}", reference.size(), a.reference.string(),
             samples.size(), a.samples.string(), samples.width(), samples.height(), result.words());
  if (network.is_random())
    fmt::print("random weights: no published number compares with these; FID and IS need {}\n", kFeatureFile);
}

ExitCode run(int argc, char** argv) {
  CLI::App app(kAbout, "var_eval");
  app.footer(kExamples);
  app.require_subcommand(1);
  Arguments a;
  CLI::App* fd =
      app.add_subcommand("fd", "Fréchet distance, KID, precision and recall of samples against a reference");
  fd->add_option("--reference", a.reference, "folder of images, or of class folders with images")->required();
  fd->add_option("--samples", a.samples, "the same, to be judged")->required();
  fd->add_option("--features", a.features, "the network's weight file, or random");
  fd->add_option("--name", a.name,
                 "what the weight file is; inception-2015-12-05 makes the distance an FID, on your word");
  fd->add_option("--seed", a.seed, "of random weights (default 0)");
  fd->add_option("--batch", a.batch, "images at a time; changes the last bits (default 16)")
      ->check(CLI::PositiveNumber);
  fd->add_flag("--json", a.json, "print the figures as JSON");
  if (!base::parse_command_line(app, argc, argv)) return ExitCode::kDone;
  const data::VipsRuntime vips("var_eval");
  compare_folders(a);
  return ExitCode::kDone;
}

}  // namespace
}  // namespace varscale::apps

int main(int argc, char** argv) {
  return varscale::base::run_main("var_eval", [&] { return varscale::apps::run(argc, argv); });
}
