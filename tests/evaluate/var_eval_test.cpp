// The program var_eval, and the folders of images that it reads.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.hpp"
#include "base/file.hpp"
#include "data/png.hpp"
#include "evaluate/comparison.hpp"
#include "evaluate/image_folder.hpp"
#include "evaluate/inception.hpp"
#include "nn/tensor.hpp"
#include "tests/support/hash_weights.hpp"
#include "tests/support/python.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::evaluate {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class VarEval : public testing::Test {
 protected:
  // Once a process: the library does not start a second time.
  static void SetUpTestSuite() { static const data::VipsRuntime vips("evaluate_test"); }

  VarEval() {
    // Classes b and a, so that the listing sorts what was not written in order.
    for (int i = 0; i < 5; ++i) write("reference", i < 2 ? "b" : "a", i, 0);
    for (int i = 0; i < 4; ++i) write("samples", "", i, 90);
  }

  void write(const char* set, const char* group, int number, int above, int side = 12) const {
    const fs::path path = folder_ / set / group / fmt::format("{}.png", number);
    fs::create_directories(path.parent_path());
    const at::Tensor pixels = test::hash_int_tensor(fmt::format("{}{}", set, number), {side, side, 3}, 256 - above);
    data::write_png(path, (pixels + above).to(at::kByte));
  }

  // Exit status; what it printed is in text("out") and text("err").
  int run(const std::string& arguments) const {
    const char* bin = std::getenv("VARSCALE_BIN");
    EXPECT_NE(bin, nullptr) << "run me through ctest";
    const int status = std::system(fmt::format("cd {} && {}/var_eval {} >out 2>err", folder_.path().string(),
                                               bin ? bin : ".", arguments)
                                       .c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::string text(const char* name) const { return base::read_file(folder_ / name); }
  std::string refusal(const std::string& arguments) const {
    EXPECT_EQ(run(arguments), 2) << arguments;
    return text("err");
  }

  base::TemporaryFolder folder_;
};

TEST_F(VarEval, GivesTheLibrarysFiguresUnderTheirNames) {
  ASSERT_EQ(run("fd --reference reference --samples samples --features random --seed 7 --batch 3 --json"), 0)
      << text("err");
  const auto json = nlohmann::json::parse(text("out"));

  const Inception network = Inception::random(7);
  const auto features = [&](const char* name) {
    const ImageFolder images = ImageFolder::open(folder_ / name);
    return features_of(network, {images.size(), [&](int64_t i, int64_t n) { return images.batch(i, n); }}, 3);
  };
  const Comparison want = compare(network, features("reference"), features("samples"));
  EXPECT_EQ(json.at("frechet").at("name"), "FD-random");
  EXPECT_EQ(json.at("network").at("name"), "random inception, seed 7");
  EXPECT_EQ(json.at("network").at("identity"), network.identity());
  EXPECT_EQ(json.at("network").at("random"), true);
  // The program may run on another number of threads.
  EXPECT_NEAR(json.at("frechet").at("value").get<double>(), want.frechet, 1e-4 * want.frechet);
  EXPECT_EQ(json.at("spatial_frechet").at("name"), "sFD-random");
  EXPECT_NEAR(json.at("spatial_frechet").at("value").get<double>(), *want.spatial, 1e-4 * *want.spatial);
  EXPECT_NEAR(json.at("kid").at("value").get<double>(), want.kernel->mean, 1e-4 * std::abs(want.kernel->mean));
  EXPECT_EQ(json.at("precision"), want.neighbourhoods->precision);
  EXPECT_EQ(json.at("recall"), want.neighbourhoods->recall);
  EXPECT_EQ(json.at("reference_images"), 5);
  EXPECT_EQ(json.at("sample_images"), 4);
  EXPECT_FALSE(json.contains("inception_score"));
}

TEST_F(VarEval, CallsItFidAndScoresClassesOnTheUsersWord) {
  nn::NamedTensors weights = Inception::state();
  for (nn::NamedTensor& named : weights)
    named.tensor = test::hash_param(named.name, named.tensor.sizes(), 1, std::sqrt(2.0));
  nn::save_tensors(folder_ / "w.safetensors", weights);
  const std::string sets = "fd --reference samples --samples samples --features w.safetensors";
  ASSERT_EQ(run(sets + " --name inception-2015-12-05"), 0) << text("err");
  EXPECT_THAT(text("out"), HasSubstr("4 reference images in samples, 4 samples in samples, 12 x 12 pixels\nFID "));
  EXPECT_THAT(text("out"), HasSubstr("precision  1.0000 (k = 3)\nrecall     1.0000\nIS "));
  EXPECT_THAT(text("out"), HasSubstr("network: inception-2015-12-05 ("));
  EXPECT_THAT(text("out"), HasSubstr("FID depends on the numbers of images"));
  EXPECT_THAT(refusal(sets + " --seed 3"), HasSubstr("--seed 3: has an effect with --features random alone"));
}

// numpy makes the files of the folders' images and of the features that the library gives for them.
TEST_F(VarEval, ReadsFilesOfNumpyInThePlaceOfFolders) {
  const Inception network = Inception::random(7);
  for (const char* name : {"reference", "samples"}) {
    const ImageFolder images = ImageFolder::open(folder_ / name);
    const at::Tensor all = images.batch(0, images.size());
    const auto save = [&](const std::string& suffix, const at::Tensor& t) {
      folder_.write(name + suffix, {static_cast<const char*>(t.const_data_ptr()), t.nbytes()});
    };
    save(".u8", all.permute({0, 2, 3, 1}).contiguous());
    save(".f4", network.batch(all));
    save(".s4", network.run(all).spatial_BE);
  }
  test::run_python(R"(
import os, sys, numpy as np
os.chdir(sys.argv[1])
pixels = {name: np.fromfile(name + '.u8', np.uint8).reshape(-1, 12, 12, 3) for name in ('reference', 'samples')}
features = np.fromfile('reference.f4', np.float32).reshape(-1, 2048)
spatial = np.fromfile('reference.s4', np.float32).reshape(-1, 2023)
statistics = {'mu': features.mean(0), 'sigma': np.cov(features, rowvar=False),
              'mu_s': spatial.mean(0), 'sigma_s': np.cov(spatial, rowvar=False)}
np.savez('samples.npz', arr_0=pixels['samples'], arr_1=np.zeros(4, np.int64))
np.savez('images.npz', arr_0=pixels['reference'])
np.savez_compressed('statistics.npz', **statistics)
np.savez('both.npz', arr_0=pixels['reference'], **statistics)
np.savez('other.npz', mu=np.zeros(768), sigma=np.eye(768))
)",
                   folder_.path());
  const auto features = [&](const char* name) {
    const ImageFolder images = ImageFolder::open(folder_ / name);
    return features_of(network, {images.size(), [&](int64_t i, int64_t n) { return images.batch(i, n); }}, 3);
  };
  const Comparison want = compare(network, features("reference"), features("samples"));
  for (const char* reference : {"images.npz", "both.npz"}) {
    ASSERT_EQ(run(fmt::format("fd --features random --seed 7 --json --samples samples.npz --reference {}", reference)), 0)
        << text("err");
    const auto json = nlohmann::json::parse(text("out"));
    // The program may run on another number of threads.
    EXPECT_NEAR(json.at("frechet").at("value").get<double>(), want.frechet, 1e-4 * want.frechet) << reference;
    EXPECT_EQ(json.at("frechet").at("by_statistics"), reference == std::string("both.npz"));
    EXPECT_NEAR(json.at("spatial_frechet").at("value").get<double>(), *want.spatial, 1e-4 * *want.spatial) << reference;
    EXPECT_NEAR(json.at("kid").at("value").get<double>(), want.kernel->mean, 1e-4 * std::abs(want.kernel->mean));
    EXPECT_EQ(json.at("precision"), want.neighbourhoods->precision);
    EXPECT_EQ(json.at("recall"), want.neighbourhoods->recall);
    EXPECT_EQ(json.at("reference_images"), 5);
  }

  ASSERT_EQ(run("fd --features random --seed 7 --reference statistics.npz --samples samples"), 0) << text("err");
  const std::string begin =
      "reference statistics of statistics.npz, 4 samples in samples, 12 x 12 pixels\nFD-random  ";
  ASSERT_THAT(text("out"), testing::StartsWith(begin));
  EXPECT_NEAR(std::stod(text("out").substr(begin.size())), want.frechet, 1e-4 * want.frechet);

  // Kept features of an archive's images, and against statistics without any network.
  ASSERT_EQ(run("features --features random --seed 7 --images samples.npz --out samples.h5"), 0) << text("err");
  ASSERT_EQ(run("fd --reference statistics.npz --samples samples.h5 --json"), 0) << text("err");
  const auto kept = nlohmann::json::parse(text("out"));
  EXPECT_NEAR(kept.at("frechet").at("value").get<double>(), want.frechet, 1e-4 * want.frechet);
  EXPECT_NEAR(kept.at("spatial_frechet").at("value").get<double>(), *want.spatial, 1e-4 * *want.spatial);
  EXPECT_THAT(refusal("features --features random --images statistics.npz --out s.h5"),
              HasSubstr("--images statistics.npz: holds statistics, but no images (arr_0)"));

  EXPECT_THAT(refusal("fd --features random --reference reference --samples statistics.npz"),
              HasSubstr("--samples statistics.npz: holds statistics, but no images (arr_0), which the samples must"));
  EXPECT_THAT(refusal("fd --features random --reference other.npz --samples samples"),
              HasSubstr("other.npz: mu has 768 features, the network has 2048; expected statistics of the same"));
  EXPECT_THAT(refusal("fd --features random --reference samples/0.png --samples samples"),
              HasSubstr("samples/0.png: not a zip archive"));
}

TEST_F(VarEval, KeepsFeaturesForLaterComparisons) {
  const std::string random = " --features random --seed 7 --batch 3 ";
  ASSERT_EQ(run("fd --reference reference --samples samples --json" + random), 0) << text("err");
  const auto want = nlohmann::json::parse(text("out"));
  ASSERT_EQ(run("features --images reference --out r.h5" + random), 0) << text("err");
  EXPECT_THAT(text("out"), HasSubstr("r.h5: features of 5 images in reference through random inception, seed 7 ("));
  ASSERT_EQ(run("features --images samples --out s.h5" + random), 0) << text("err");
  const std::string sides[] = {"--reference r.h5 --samples s.h5", "--reference r.h5 --samples samples" + random,
                               "--reference reference --samples s.h5" + random};
  for (const std::string& sets : sides) {
    ASSERT_EQ(run("fd --json " + sets), 0) << text("err");
    auto got = nlohmann::json::parse(text("out"));
    got["reference"] = "reference", got["samples"] = "samples";
    EXPECT_EQ(got, want) << sets;  // to the bit
  }

  EXPECT_THAT(refusal("fd --reference r.h5 --samples samples --features random --seed 8"),
              HasSubstr("--reference r.h5: holds features of random inception, seed 7 ("));
  EXPECT_THAT(text("err"), HasSubstr("), --features random gives those of random inception, seed 8 ("));
  EXPECT_THAT(text("err"), HasSubstr("); expected one network under one name"));
  EXPECT_THAT(refusal("fd --reference r.h5 --samples s.h5 --features random"),
              HasSubstr("--features random: has no effect where neither set has images to look at"));
  EXPECT_THAT(refusal("fd --reference r.h5 --samples s.h5 --batch 4"),
              HasSubstr("--batch 4: has no effect where neither set has images to look at"));
  EXPECT_THAT(refusal("fd --reference r.h5 --samples samples"), HasSubstr("--features is missing"));
  folder_.write("t.h5", "no features");
  EXPECT_THAT(refusal("fd --reference t.h5 --samples s.h5"), HasSubstr("t.h5: is not an HDF5 file"));
  EXPECT_THAT(refusal("features --images r.h5 --out s.h5" + random),
              HasSubstr("--images r.h5: holds features, no images"));
  EXPECT_THAT(refusal("features --images samples --out s.npz" + random),
              HasSubstr("--out s.npz: expected a name that ends in .h5"));
  for (int i = 0; i < 4; ++i) write("large", "", i, 0, 14);
  EXPECT_THAT(refusal("fd --reference r.h5 --samples large" + random),
              HasSubstr("r.h5 holds images of 12 x 12 pixels, large of 14 x 14; all images must have one size"));
}

TEST_F(VarEval, RefusesInOneSentence) {
  const std::string sets = "fd --reference reference --samples samples ";
  EXPECT_THAT(refusal(sets), HasSubstr("--features is missing: give the FID Inception v3 (pytorch-fid's "
                                       "pt_inception-2015-12-05-6726825d"));
  EXPECT_THAT(refusal(sets + "--features inception.pth"),
              HasSubstr("--features inception.pth: no such file; expected the FID Inception v3"));
  nn::save_tensors(folder_ / "other.safetensors", {{"weight", at::zeros({2})}});
  EXPECT_THAT(refusal(sets + "--features other.safetensors"),
              HasSubstr("other.safetensors: holds no tensor Conv2d_1a_3x3.conv.weight"));
  EXPECT_THAT(refusal(sets + "--features random --name mine"), HasSubstr("--name mine: random weights have a name"));
  EXPECT_THAT(refusal("fd --reference nowhere --samples samples --features random"),
              HasSubstr("nowhere: does not exist, expected a folder of images"));
  write("torn", "", 0, 0);
  folder_.write("torn/0.png", base::read_file(folder_ / "torn/0.png").substr(0, 200));
  EXPECT_THAT(refusal("fd --reference torn --samples samples --features random"),
              HasSubstr("torn/0.png: not a readable image"));
  for (int i = 0; i < 3; ++i) write("few", "", i, 0);
  EXPECT_THAT(refusal("fd --reference reference --samples few --features random"),
              HasSubstr("--samples few: holds 3 images, expected at least 4"));
  for (int i = 0; i < 4; ++i) write("large", "", i, 0, 14);
  EXPECT_THAT(refusal("fd --reference reference --samples large --features random"),
              HasSubstr("reference holds images of 12 x 12 pixels, large of 14 x 14; all images must have one size"));
}

TEST_F(VarEval, ReadsFlatFoldersAndClassFoldersInTheOrderOfNames) {
  const ImageFolder reference = ImageFolder::open(folder_ / "reference");
  ASSERT_EQ(reference.size(), 5);
  const at::Tensor images = reference.batch(0, 8);
  ASSERT_EQ(images.sizes(), (std::vector<int64_t>{5, 3, 12, 12}));
  const int order[] = {2, 3, 4, 0, 1};
  for (int i = 0; i < 5; ++i) {
    const at::Tensor want = test::hash_int_tensor(fmt::format("reference{}", order[i]), {12, 12, 3}, 256);
    EXPECT_TRUE(at::equal(images[i].to(at::kLong), want.permute({2, 0, 1}))) << i;
  }
  EXPECT_TRUE(at::equal(reference.batch(3, 2), images.slice(0, 3)));
  const std::string before = reference.fingerprint();
  fs::rename(folder_ / "reference", folder_ / "moved");
  EXPECT_EQ(ImageFolder::open(folder_ / "moved").fingerprint(), before);
  fs::rename(folder_ / "moved/a/4.png", folder_ / "moved/a/5.png");
  EXPECT_NE(ImageFolder::open(folder_ / "moved").fingerprint(), before);

  folder_.write("samples/notes.txt", "not an image");
  const ImageFolder samples = ImageFolder::open(folder_ / "samples");
  EXPECT_EQ(samples.size(), 4);
  write("samples", "", 9, 0, 14);
  EXPECT_THAT(base::message_of<base::UserError>([&] { ImageFolder::open(folder_ / "samples").batch(0, 5); }),
              HasSubstr("9.png: has 14 x 14 pixels, but"));
  write("samples", "class", 0, 0);
  EXPECT_THAT(base::message_of<base::UserError>([&] { ImageFolder::open(folder_ / "samples"); }),
              HasSubstr("holds image files (0.png) beside folders"));
  fs::create_directories(folder_ / "empty");
  EXPECT_THAT(base::message_of<base::UserError>([&] { ImageFolder::open(folder_ / "empty"); }),
              HasSubstr("empty: holds no images"));
}

}  // namespace
}  // namespace varscale::evaluate
