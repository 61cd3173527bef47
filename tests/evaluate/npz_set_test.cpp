#include "evaluate/npz_set.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "base/error.hpp"
#include "base/file.hpp"
#include "tests/support/python.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::evaluate {
namespace {

using base::message_of;
using base::UserError;
using testing::HasSubstr;

constexpr auto kPool = NpzStatistics::kPool, kSpatial = NpzStatistics::kSpatial;

// Arrays by formula, so that both sides make them: mu[i] = i / 4 - 1, sigma[i,j] = 2 or 1 / (2 + i + j), pixel value
// k = 7 k mod 251.
constexpr const char* kArrays = R"(
import sys, numpy as np
def mu(n): return np.arange(n) / 4 - 1
def sigma(n): return np.where(np.eye(n) > 0, 2., 1 / (2 + np.add.outer(np.arange(n), np.arange(n))))
def pixels(n, h, w): return (7 * np.arange(n * h * w * 3) % 251).astype(np.uint8).reshape(n, h, w, 3)
def save(name, deflate=False, **arrays):
    (np.savez_compressed if deflate else np.savez)(sys.argv[1] + '/' + name, **arrays)
)";

class Npz : public testing::Test {
 protected:
  void numpy(const std::string& program) const { test::run_python(kArrays + program, folder_.path()); }
  NpzSet open(const char* name) const { return NpzSet(folder_ / name); }
  base::TemporaryFolder folder_;
};

at::Tensor mean(int64_t n) { return at::arange(n, at::kDouble) / 4 - 1; }

at::Tensor covariance(int64_t n) {
  const at::Tensor i = at::arange(n, at::kDouble);
  return at::where(at::eye(n, at::kDouble) > 0, 2., 1 / (2 + i.unsqueeze(1) + i));
}

at::Tensor pixels_N3HW(int64_t n, int64_t h, int64_t w) {
  return (7 * at::arange(n * h * w * 3) % 251).to(at::kByte).view({n, h, w, 3}).permute({0, 3, 1, 2});
}

TEST_F(Npz, ReadsStatisticsThatNumpyWrote) {
  numpy(R"(
save('stored.npz', mu=mu(6), sigma=sigma(6))
save('deflated.npz', True, mu=mu(6).astype('f4'), sigma=np.asfortranarray(sigma(6).astype('f4')), mu_s=mu(3),
     sigma_s=sigma(3))
)");
  const NpzSet stored = open("stored.npz"), deflated = open("deflated.npz");
  EXPECT_EQ(stored.size(), 0);
  EXPECT_EQ(stored.features(kPool), 6);
  EXPECT_EQ(stored.features(kSpatial), std::nullopt);
  EXPECT_TRUE(at::equal(stored.gaussian(kPool, 6).mean_D, mean(6)));
  EXPECT_TRUE(at::equal(stored.gaussian(kPool, 6).covariance_DD, covariance(6)));
  EXPECT_EQ(stored.gaussian(kPool, 6).images, 0);  // not known
  const Gaussian pool = deflated.gaussian(kPool, 6);
  EXPECT_EQ(pool.mean_D.scalar_type(), at::kDouble);
  EXPECT_TRUE(at::equal(pool.mean_D, mean(6).to(at::kFloat).to(at::kDouble)));
  EXPECT_TRUE(at::equal(pool.covariance_DD, covariance(6).to(at::kFloat).to(at::kDouble)));
  EXPECT_TRUE(at::equal(deflated.gaussian(kSpatial, 3).covariance_DD, covariance(3)));
}

TEST_F(Npz, MakesACovarianceSymmetricThatNearlyIs) {
  numpy(R"(
a = sigma(4)
a[0, 3] += 1e-6
save('a.npz', mu=mu(4), sigma=np.asfortranarray(a))
a[0, 3] += 1
save('b.npz', mu=mu(4), sigma=a)
)");
  const at::Tensor read = open("a.npz").gaussian(kPool, 4).covariance_DD;
  EXPECT_TRUE(at::equal(read, read.t()));
  EXPECT_NEAR(read[0][3].item<double>(), 0.2 + 0.5e-6, 1e-12);
  EXPECT_THAT(message_of<UserError>([&] { open("b.npz").gaussian(kPool, 4); }),
              HasSubstr("b.npz: sigma differs from its transpose by up to 1"));
}

TEST_F(Npz, ReadsImagesInBatches) {
  numpy(R"(
for name, deflate in ('stored.npz', False), ('deflated.npz', True):
    save(name, deflate, arr_0=pixels(7, 5, 4), arr_1=np.arange(7), mu=mu(2), sigma=sigma(2))
)");
  const at::Tensor want = pixels_N3HW(7, 5, 4);
  for (const char* name : {"stored.npz", "deflated.npz"}) {
    const NpzSet set = open(name);
    EXPECT_EQ(set.size(), 7);
    EXPECT_EQ(set.height(), 5);
    EXPECT_EQ(set.width(), 4);
    for (int64_t i = 0; i < 7; i += 3)
      EXPECT_TRUE(at::equal(set.batch(i, 3), want.slice(0, i, std::min<int64_t>(i + 3, 7)))) << name << " " << i;
    EXPECT_TRUE(at::equal(set.gaussian(kPool, 2).mean_D, mean(2)));
    EXPECT_TRUE(at::equal(set.batch(2, 1), want.slice(0, 2, 3)));  // again, and back
    EXPECT_TRUE(set.batch(0, 100).is_contiguous());
  }
}

// 192 MB of images with 64 MB of memory.
TEST_F(Npz, NeverHoldsAllImages) {
  {
    archives::ZipWriter out(folder_ / "large.npz");
    const std::string head = archives::write_npy_head({"|u1", {4000, 128, 128, 3}}), row(128 * 128 * 3, '\x11');
    out.begin("arr_0.npy", {.deflate = true});
    out.write(head.data(), head.size());
    for (int i = 0; i < 4000; ++i) out.write(row.data(), row.size());
    out.end();
    out.commit();
  }
  const NpzSet set = open("large.npz");
  EXPECT_EQ(set.batch(0, 16).max().item<int>(), 0x11);
  rlimit before{}, less{};
  getrlimit(RLIMIT_AS, &before);
  rlim_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  less = before;
  less.rlim_cur = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (64 << 20);
  setrlimit(RLIMIT_AS, &less);
  int64_t sum = 0;
  EXPECT_NO_THROW({
    for (int64_t i = 0; i < set.size(); i += 16) sum += set.batch(i, 16).sum().item<int64_t>();
  });
  setrlimit(RLIMIT_AS, &before);
  EXPECT_EQ(sum, int64_t{4000} * 128 * 128 * 3 * 0x11);
}

TEST_F(Npz, FindsDamageByItsChecksum) {
  numpy("save('a.npz', arr_0=pixels(9, 8, 8), mu=mu(5), sigma=sigma(5))\n");
  std::string bytes = base::read_file(folder_ / "a.npz");
  bytes[bytes.find("NUMPY") + 800] ^= 1;  // in arr_0
  folder_.write("a.npz", bytes);
  const NpzSet set = open("a.npz");
  set.batch(0, 4);
  EXPECT_THAT(message_of<UserError>([&] {
                set.batch(4, 4);
                set.batch(8, 4);
              }),
              HasSubstr("a.npz: entry 'arr_0.npy' is damaged"));
  EXPECT_TRUE(at::equal(set.gaussian(kPool, 5).mean_D, mean(5)));
}

TEST_F(Npz, RefusesInOneSentence) {
  const struct {
    const char *arrays, *sentence;
  } cases[] = {
      {"x=mu(2)", ": holds neither images (arr_0) nor statistics (mu and sigma); its entries: x.npy"},
      {"mu_s=mu(2), sigma_s=sigma(2)", ": holds neither images (arr_0) nor statistics"},
      {"mu=mu(4)", ": holds mu without sigma, expected both or neither"},
      {"sigma=sigma(4)", ": holds sigma without mu, expected both or neither"},
      {"mu=mu(4), sigma=sigma(4), mu_s=mu(2)", ": holds mu_s without sigma_s, expected both or neither"},
      {"mu=mu(4).astype('>f8'), sigma=sigma(4)", ": mu has values of type >f8, expected float64 or float32 (<f8, <f4)"},
      {"mu=mu(4), sigma=sigma(4).astype('f2')", ": sigma has values of type <f2, expected float64 or float32"},
      {"mu=np.arange(4), sigma=sigma(4)", ": mu has values of type <i8, expected float64"},
      {"mu=mu(4), sigma=np.array([None])", ": entry 'sigma.npy': the head of the array has the dtype '|O'"},
      {"mu=mu(4).reshape(1, 4), sigma=sigma(4)", ": mu has the shape [1, 4], expected a mean [features]"},
      {"mu=mu(0), sigma=sigma(0)", ": mu has the shape [0], expected a mean [features]"},
      {"mu=mu(4), sigma=sigma(3)", ": sigma has the shape [3, 3], expected [4, 4] as mu has 4 features"},
      {"mu=mu(4), sigma=sigma(4).reshape(16)", ": sigma has the shape [16], expected [4, 4]"},
      {"mu=mu(5), sigma=sigma(5)", ": mu has 5 features, the network has 4; expected statistics of the same network"},
      {"mu=np.array([1, np.nan, 0, 0]), sigma=sigma(4)", ": mu holds a value that is not a finite number"},
      {"mu=mu(4), sigma=sigma(4) * np.inf", ": sigma holds a value that is not a finite number"},
      {"mu=mu(4), sigma=-sigma(4)", ": sigma has the variance -2 at place 0 of its diagonal, expected none below 0"},
      {"mu=mu(4), sigma=np.tri(4)", ": sigma differs from its transpose by up to 1, expected a symmetric covariance"},
      {"arr_0=pixels(4, 8, 8).astype('f4')", ": arr_0 has values of type <f4, expected uint8 images (|u1)"},
      {"arr_0=pixels(4, 8, 8)[..., 0]", ": arr_0 has the shape [4, 8, 8], expected images [N, height, width, 3]"},
      {"arr_0=pixels(4, 8, 8).transpose(0, 3, 1, 2).copy()", ": arr_0 has the shape [4, 3, 8, 8], expected images"},
      {"arr_0=np.asfortranarray(pixels(4, 8, 8))", ": arr_0 is stored column by column (Fortran order), expected"},
      {"arr_0=pixels(0, 8, 8)", ": arr_0 has 0 images of 8 x 8 pixels, expected at least 1 image"},
      {"arr_0=pixels(1, 1, 5000)", ": arr_0 has 1 images of 5000 x 1 pixels, expected at least 1 image of 1 to 4096"},
  };
  std::string program;
  for (size_t i = 0; i < std::size(cases); ++i) program += fmt::format("save('{}.npz', {})\n", i, cases[i].arrays);
  numpy(program);
  for (size_t i = 0; i < std::size(cases); ++i) {
    const std::filesystem::path path = folder_ / fmt::format("{}.npz", i);
    EXPECT_THAT(message_of<UserError>([&] {
                  const NpzSet set(path);
                  if (set.features(kPool)) set.gaussian(kPool, 4);
                }),
                HasSubstr(path.string() + cases[i].sentence))
        << cases[i].arrays;
  }
}

TEST_F(Npz, RefusesOtherAndTruncatedFilesByName) {
  numpy("save('a.npz', mu=mu(9), sigma=sigma(9))\nnp.save(sys.argv[1] + '/a.npy', mu(9))\n");
  const std::string bytes = base::read_file(folder_ / "a.npz");
  for (const size_t count : {size_t{0}, size_t{30}, bytes.size() / 2, bytes.size() - 1}) {
    const std::filesystem::path path = folder_.write("cut.npz", bytes.substr(0, count));
    EXPECT_THAT(message_of<UserError>([&] { NpzSet set(path); }), HasSubstr(path.string() + ": ")) << count;
  }
  EXPECT_THAT(message_of<UserError>([&] { open("a.npy"); }), HasSubstr("a.npy: not a zip archive, or a damaged one"));
  EXPECT_THAT(message_of<UserError>([&] { open("none.npz"); }), HasSubstr("none.npz"));
  EXPECT_THAT(message_of<UserError>([&] { open("a.npz").gaussian(kSpatial, 9); }),
              HasSubstr("a.npz: holds no statistics mu_s and sigma_s"));
}

}  // namespace
}  // namespace varscale::evaluate
