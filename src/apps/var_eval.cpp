// var_eval: how far one set of images is from another.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
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
#include "evaluate/npz_set.hpp"
#include "feature_option.hpp"

namespace varscale::apps {
namespace {

namespace fs = std::filesystem;
using base::ExitCode;
using base::UserError;
using evaluate::ImageFolder;
using evaluate::Inception;
using evaluate::NpzSet;
using evaluate::NpzStatistics;

constexpr const char* kAbout = "Measures sets of images. Every figure comes with the network it was taken through.";

constexpr const char* kExamples = R"(
Examples:
  var_eval fd --reference images/val --samples samples --features random
  var_eval fd --reference images/val --samples samples --features inception.pth --name inception-2015-12-05
  var_eval fd --reference VIRTUAL_imagenet256_labeled.npz --samples samples.npz --features inception.pth

Exit codes: 0 done, 2 bad input, others failure.)";

struct Arguments {
  fs::path reference, samples;
  std::string features, name;
  std::optional<uint64_t> seed;
  int64_t batch = 16;
  bool json = false;
};

// A folder of images or an .npz file, whichever the path is.
struct Set {
  evaluate::ImageRows images;  // none where the file has statistics alone
  int64_t width = 0, height = 0;
  std::shared_ptr<const NpzSet> file;  // null: a folder
  bool has_statistics() const { return file != nullptr && file->features(NpzStatistics::kPool).has_value(); }
};

Set set_of(auto images) {
  return {{images->size(), [images](int64_t begin, int64_t count) { return images->batch(begin, count); }},
          images->width(),
          images->height(),
          nullptr};
}

Set open(const char* option, const fs::path& path) {
  Set set;
  if (fs::is_regular_file(path)) {
    const auto file = std::make_shared<const NpzSet>(path);
    set = set_of(file);
    set.file = file;
  } else {
    set = set_of(std::make_shared<const ImageFolder>(ImageFolder::open(path)));
  }
  if (set.images.count < evaluate::fewest_images() && (set.images.count > 0 || !set.has_statistics()))
    throw UserError("{} {}: holds {} images, expected at least {}", option, path.string(), set.images.count,
                    evaluate::fewest_images());
  return set;
}

evaluate::ImageFeatures features_of(const char* what, const Inception& network, const Set& set, int64_t batch) {
  base::Progress progress(what, set.images.count, "images");
  evaluate::ImageFeatures features =
      evaluate::features_of(network, set.images, batch, [&](int64_t count) { progress.advance(count); });
  progress.finish();
  return features;
}

std::string reference_words(const Arguments& a, const Set& reference) {
  std::string words;
  if (reference.has_statistics()) words = fmt::format("reference statistics of {}, ", a.reference.string());
  if (reference.images.count > 0)
    words += fmt::format("{} reference images in {}, ", reference.images.count, a.reference.string());
  return words;
}

void compare_sets(const Arguments& a) {
  const Set reference = open("--reference", a.reference), samples = open("--samples", a.samples);
  if (samples.images.count == 0)
    throw UserError("--samples {}: holds statistics, but no images (arr_0), which the samples must be",
                    a.samples.string());
  if (reference.images.count > 0 && (reference.width != samples.width || reference.height != samples.height))
    throw UserError("{} holds images of {} x {} pixels, {} of {} x {}; all images must have one size",
                    a.reference.string(), reference.width, reference.height, a.samples.string(), samples.width,
                    samples.height);
  const Inception network = feature_network({a.features, a.name, a.seed});
  // Before any image is looked at: the file may be refused.
  std::optional<evaluate::Gaussian> statistics, spatial;
  if (reference.has_statistics()) statistics = reference.file->gaussian(NpzStatistics::kPool, network.dimension());
  if (statistics && reference.file->features(NpzStatistics::kSpatial))
    spatial = reference.file->gaussian(NpzStatistics::kSpatial, network.spatial_dimension());
  std::optional<evaluate::ImageFeatures> reference_features;
  if (reference.images.count > 0) reference_features.emplace(features_of("reference", network, reference, a.batch));
  const evaluate::ImageFeatures sample_features = features_of("samples", network, samples, a.batch);
  evaluate::Comparison result =
      statistics ? evaluate::compare(network, *statistics, reference_features ? &*reference_features : nullptr,
                                     sample_features, spatial ? &*spatial : nullptr)
                 : evaluate::compare(network, *reference_features, sample_features);
  if (network.name() == evaluate::kFidNetwork)
    result.inception_score = evaluate::shuffled_inception_score(network.logits(sample_features.features_ND));
  if (a.json) {
    nlohmann::ordered_json json = result.json();
    json["reference"] = a.reference.string();
    json["samples"] = a.samples.string();
    json["width"] = samples.width;
    json["height"] = samples.height;
    fmt::print("{}\n", json.dump(2));
    return;
  }
  fmt::print("{}{} samples in {}, {} x {} pixels\n{}", reference_words(a, reference), samples.images.count,
             a.samples.string(), samples.width, samples.height, result.words());
  if (network.is_random())
    fmt::print("random weights: no published number compares with these; FID and IS need {}\n", kFeatureFile);
}

ExitCode run(int argc, char** argv) {
  CLI::App app(kAbout, "var_eval");
  app.footer(kExamples);
  app.require_subcommand(1);
  Arguments a;
  CLI::App* fd =
      app.add_subcommand("fd", "Fréchet distances, KID, precision and recall of samples against a reference");
  fd->add_option("--reference", a.reference,
                 "folder of images, or of class folders with images; or an .npz file of images (arr_0), statistics "
                 "(mu, sigma) or both")
      ->required();
  fd->add_option("--samples", a.samples, "images to be judged: a folder, or an .npz file with arr_0")->required();
  fd->add_option("--features", a.features, "the network's weight file, or random");
  fd->add_option("--name", a.name,
                 "what the weight file is; inception-2015-12-05 makes the distance an FID, on your word");
  fd->add_option("--seed", a.seed, "of random weights (default 0)");
  fd->add_option("--batch", a.batch, "images at a time; changes the last bits (default 16)")
      ->check(CLI::PositiveNumber);
  fd->add_flag("--json", a.json, "print the figures as JSON");
  if (!base::parse_command_line(app, argc, argv)) return ExitCode::kDone;
  const data::VipsRuntime vips("var_eval");
  compare_sets(a);
  return ExitCode::kDone;
}

}  // namespace
}  // namespace varscale::apps

int main(int argc, char** argv) {
  return varscale::base::run_main("var_eval", [&] { return varscale::apps::run(argc, argv); });
}
