// 1,660 hostile files through the functions that the programs read files with: every one is read right or refused in
// one sentence that names it; nothing in a file runs, and no reader takes memory beyond its limit.
//
// Read right  What a format protects by checksums reads as in the file it was made from, to the byte, unless the
//             generator has mended them; everything else has the sizes that it says, and lies inside the file.
// Memory      The address space may grow by the limit of the format while a file is read (RLIMIT_AS); an allocation
//             beyond it would end in another exception, or in a sentence about memory, and fails the test.
// Seed        VARSCALE_HOSTILE_SEED, 7 without it.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>

#include "archives/pth_file.hpp"
#include "archives/tensor_source.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "data/image_file.hpp"
#include "data/image_set.hpp"
#include "data/vips_runtime.hpp"
#include "evaluate/npz_set.hpp"
#include "tests/hostile/generator.hpp"
#include "tests/support/python.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::hostile {
namespace {

namespace fs = std::filesystem;
using base::UserError;
using Parts = std::map<std::string, std::string>;  // what was read, under its names

constexpr rlim_t kMiB = 1 << 20;

uint64_t seed() {
  const char* given = std::getenv("VARSCALE_HOSTILE_SEED");
  return given == nullptr ? 7 : std::stoull(given);
}

rlim_t address_space() {
  rlim_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
}

class MemoryLimit {
 public:
  explicit MemoryLimit(rlim_t more) {
    getrlimit(RLIMIT_AS, &before_);
    rlimit now = before_;
    now.rlim_cur = std::min(before_.rlim_max, address_space() + more);
    setrlimit(RLIMIT_AS, &now);
  }
  ~MemoryLimit() { setrlimit(RLIMIT_AS, &before_); }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  rlimit before_{};
};

// Of /proc/self/status, in KiB.
int64_t resident_kib(const char* field) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int64_t kib = 0;
    if (word == field && status >> kib) return kib;
  }
  return 0;
}

// How far the memory in use has grown above its beginning, at most.
class Peak {
 public:
  Peak() {
    std::ofstream("/proc/self/clear_refs") << "5";  // the mark of the highest begins anew
    before_ = resident_kib("VmRSS:");
  }
  int64_t mib() const { return (resident_kib("VmHWM:") - before_) / 1024; }

 private:
  int64_t before_ = 0;
};

// One line that begins with the file, without what a terminal would act on.
void expect_sentence(const std::string& said, const fs::path& path, const std::string& what) {
  EXPECT_TRUE(said.starts_with(path.string() + ": ")) << what << ": " << said;
  const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
  EXPECT_TRUE(std::ranges::none_of(said, is_control)) << what << ": " << said;
  EXPECT_LT(said.size(), 1000u) << what;
  EXPECT_EQ(said.find("out of memory"), std::string::npos) << what << ": " << said;
}

class HostileFiles : public testing::Test {
 protected:
  // Once a process: the library does not start a second time.
  static void SetUpTestSuite() { static const data::VipsRuntime vips("hostile_test"); }

  // The working directory holds the file that is read and nothing else; so does the folder above it.
  HostileFiles() : before_(fs::current_path()), here_(folder_ / "here") {
    fs::create_directory(here_);
    fs::current_path(here_);
  }
  ~HostileFiles() override { fs::current_path(before_); }

  struct Count {
    int read = 0, refused = 0;
  };

  void read_or_refuse(const Format& format, int64_t files, rlim_t limit,
                      const std::function<Parts(const fs::path&)>& read) {
    const fs::path path = here_ / ("file" + format.name);
    const auto write = [&](const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; };
    std::map<const Original*, Parts> known;
    for (const Original& original : format.originals) {
      write(original.bytes);
      known[&original] = read(path);
      ASSERT_FALSE(known[&original].empty()) << original.name;
    }
    int64_t peak_mib = 0;
    std::map<std::string, Count> counts;
    for (int64_t i = 0; i < files; ++i) {
      const HostileFile file = format.make(seed(), i);
      const std::string what = fmt::format("{} {} ({}, {})", format.name, i, file.kind->name, file.original->name);
      write(file.bytes);
      const Peak peak;
      try {
        const Parts parts = [&] {
          const MemoryLimit memory(limit);
          return read(path);
        }();
        ++counts[file.kind->name].read;
        if (file.original->has_sums && !file.kind->mends)
          for (const auto& [name, bytes] : parts) {
            const auto found = known[file.original].find(name);
            EXPECT_TRUE(found != known[file.original].end() && found->second == bytes)
                << what << ": " << name << " is read otherwise than it was written";
          }
      } catch (const UserError& error) {
        ++counts[file.kind->name].refused;
        expect_sentence(error.what(), path, what);
      } catch (const std::exception& error) {
        ADD_FAILURE() << what << ": " << error.what();
      }
      peak_mib = std::max(peak_mib, peak.mib());
    }
    Count all;
    for (const Kind& kind : format.kinds) {
      const Count& count = counts[kind.name];
      fmt::print("{:<6} {:<22} {:>4} files: {:>4} read, {:>4} refused\n", format.name, kind.name,
                 count.read + count.refused, count.read, count.refused);
      EXPECT_GT(count.refused, 0) << kind.name;
      all.read += count.read, all.refused += count.refused;
    }
    fmt::print("{:<6} {:<22} {:>4} files: {:>4} read, {:>4} refused; limit {} MiB, at most {} used\n", format.name,
               "all", all.read + all.refused, all.read, all.refused, limit / kMiB, peak_mib);
    EXPECT_EQ(all.read + all.refused, files);
    EXPECT_GT(all.refused, files / 3);
    EXPECT_GT(all.read, files / 100);  // changes that nobody can see, and honest bombs
    refused_[format.name] = counts;
    EXPECT_EQ(folder_.entries(), 1);
    EXPECT_EQ(std::distance(fs::directory_iterator(here_), {}), 1) << "something besides the file was made";
    EXPECT_FALSE(fs::exists(kMarker));
  }

  base::TemporaryFolder folder_;
  fs::path before_, here_;
  std::map<std::string, std::map<std::string, Count>> refused_;
};

// --- .pth
struct Walk {
  const archives::PthFile& file;
  Parts& parts;
  int64_t values = 0;

  void operator()(const archives::PthValue& value, const std::string& name) {
    using Kind = archives::PthValue::Kind;
    if (++values > 50'000) return;
    switch (value.kind()) {
      case Kind::kTensor: {
        const archives::PthTensor& tensor = value.tensor();
        std::string bytes(tensor.bytes(), '?');
        file.read(tensor, bytes.data());
        parts[fmt::format("{} [{}]", name, fmt::join(tensor.shape, ","))] = base::sha256_hex(bytes);
        return;
      }
      case Kind::kText:
      case Kind::kBytes: parts[name] = value.text(); return;
      case Kind::kInt: parts[name] = std::to_string(value.integer()); return;
      case Kind::kDict:
      case Kind::kList:
      case Kind::kTuple:
      case Kind::kSet:
        for (size_t i = 0; i < value.size(); ++i) {
          const bool named = value.kind() == Kind::kDict && value.key(i).kind() == Kind::kText;
          (*this)(value.item(i), fmt::format("{}.{}", name, named ? value.key(i).text() : std::to_string(i)));
        }
        return;
      default: return;
    }
  }
};

// As var_data import opens it, for both of its models, and whole.
Parts read_pth(const fs::path& path) {
  Parts parts;
  {
    const archives::PthFile file(path);
    Walk{file, parts}(file.root(), "");
  }
  for (const auto part : {archives::Part::kVar, archives::Part::kTokenizer}) {
    try {
      const archives::TensorSource source = archives::TensorSource::open(path, part);
      for (const auto& [name, tensor] : source.tensors()) {
        if (tensor.dtype != base::DType::kF32 && tensor.dtype != base::DType::kF16) continue;
        int64_t numel = 1;
        for (const int64_t size : tensor.shape) numel *= size;
        EXPECT_EQ(static_cast<int64_t>(source.read_float(name).size()), numel) << name;
      }
    } catch (const UserError& error) {  // it holds another model, or values that are no tensors
      expect_sentence(error.what(), path, "TensorSource");
    }
  }
  return parts;
}

TEST_F(HostileFiles, PthAreReadRightOrRefused) {
  read_or_refuse(pth_files(), 330, 512 * kMiB, read_pth);
  EXPECT_EQ(refused_[".pth"]["forbidden globals"].read, 0);
}

// Without this the test above might show no more than that its pickles are harmless.
TEST_F(HostileFiles, PicklesRunWhereTheyAreUnpickled) {
  const fs::path path = folder_.write("hostile.pkl", running_pickle());
  test::run_python(R"(
import os, pickle, sys
os.chdir(os.path.dirname(sys.argv[1]))
with open(sys.argv[1], 'rb') as file:
    pickle.load(file)
)",
                   path);
  EXPECT_TRUE(fs::exists(folder_ / kMarker));
}

// --- .npz
// As var_eval reads it, with a network of kFeatures features.
Parts read_npz(const fs::path& path) {
  using evaluate::NpzStatistics;
  const evaluate::NpzSet set(path);
  Parts parts;
  for (const auto which : {NpzStatistics::kPool, NpzStatistics::kSpatial}) {
    if (!set.features(which)) continue;
    const evaluate::Gaussian gaussian = set.gaussian(which, kFeatures);
    EXPECT_EQ(gaussian.mean_D.sizes(), at::IntArrayRef({kFeatures}));
    EXPECT_EQ(gaussian.covariance_DD.sizes(), at::IntArrayRef({kFeatures, kFeatures}));
    EXPECT_TRUE(gaussian.mean_D.isfinite().all().item<bool>());
    EXPECT_TRUE(gaussian.covariance_DD.isfinite().all().item<bool>());
    EXPECT_TRUE(at::equal(gaussian.covariance_DD, gaussian.covariance_DD.t()));
    const at::Tensor all = at::cat({gaussian.mean_D, gaussian.covariance_DD.flatten()});
    parts[which == NpzStatistics::kPool ? "pool" : "spatial"] =
        std::string(static_cast<const char*>(all.const_data_ptr()), all.nbytes());
  }
  base::Sha256 pixels;
  for (int64_t i = 0; i < set.size(); i += 16) {
    const at::Tensor batch = set.batch(i, 16);
    EXPECT_EQ(batch.sizes(), at::IntArrayRef({std::min<int64_t>(16, set.size() - i), 3, set.height(), set.width()}));
    pixels.update(batch.const_data_ptr(), batch.nbytes());
  }
  if (set.size() > 0) parts[fmt::format("{} x {} x {}", set.size(), set.height(), set.width())] = pixels.hex();
  return parts;
}

TEST_F(HostileFiles, NpzAreReadRightOrRefused) {
  read_or_refuse(npz_files(), 330, 64 * kMiB, read_npz);
  EXPECT_EQ(refused_[".npz"]["pickled objects"].read, 0);
}

// --- .tar
// As var_data tokenize lists and decodes it.
Parts read_tar(const fs::path& path) {
  const data::ImageSet set = data::ImageSet::open(path);
  const std::string archive = base::read_file(path);
  Parts parts;
  for (int64_t i = 0; i < set.size(); ++i) {
    const std::string bytes = set.read(i);
    EXPECT_EQ(static_cast<int64_t>(bytes.size()), set.entry(i).bytes);
    EXPECT_NE(archive.find(bytes), std::string::npos) << "image " << i << " is not in the archive";
    EXPECT_LT(set.label(i), static_cast<int64_t>(set.class_names().size()));
    const data::RgbImage image = data::decode_rgb(bytes, set.where(i));
    parts[std::to_string(i)] = fmt::format("{} x {}", image.width, image.height);
  }
  return parts;
}

TEST_F(HostileFiles, TarsAreReadRightOrRefused) { read_or_refuse(tar_files(), 240, 256 * kMiB, read_tar); }

// --- images, as every program decodes them
Parts read_image(const fs::path& path) {
  const data::RgbImage image = data::decode_rgb(path);
  EXPECT_GT(std::min(image.width, image.height), 0);
  EXPECT_LE(image.width * image.height, data::kMostPixels);
  EXPECT_EQ(static_cast<int64_t>(image.pixels.size()), 3 * image.width * image.height);
  base::Sha256 pixels;
  pixels.update(image.pixels.data(), image.pixels.size());
  return {{fmt::format("{} x {}", image.width, image.height), pixels.hex()}};
}

TEST_F(HostileFiles, JpegsAreReadRightOrRefused) { read_or_refuse(jpg_files(), 280, 2048 * kMiB, read_image); }
TEST_F(HostileFiles, PngsAreReadRightOrRefused) { read_or_refuse(png_files(), 280, 2048 * kMiB, read_image); }
TEST_F(HostileFiles, WebpsAreReadRightOrRefused) { read_or_refuse(webp_files(), 200, 2048 * kMiB, read_image); }

TEST(HostileGenerator, GivesTheSameBytesForTheSameSeed) {
  for (const auto& make : {pth_files, npz_files, tar_files, jpg_files, png_files, webp_files}) {
    const Format once = make(), again = make();
    int other = 0;
    for (int64_t i = 0; i < 2 * static_cast<int64_t>(once.kinds.size()); ++i) {
      EXPECT_EQ(once.make(seed(), i).bytes, again.make(seed(), i).bytes) << once.name << " " << i;
      other += once.make(seed() + 1, i).bytes != once.make(seed(), i).bytes;
    }
    EXPECT_GT(other, static_cast<int>(once.kinds.size())) << once.name;
  }
}

}  // namespace
}  // namespace varscale::hostile
