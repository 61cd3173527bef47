// The reader of .npz sets: what is accepted has the sizes that it says, and statistics are those of Gaussians. An input
// that is no archive is taken as the arrays of one, each from its magic on: a changed byte in an archive would only give
// a wrong checksum.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "archives/zip_file.hpp"
#include "base/error.hpp"
#include "evaluate/npz_set.hpp"
#include "tests/fuzz/driver.hpp"

namespace varscale {
namespace {

using evaluate::NpzStatistics;

constexpr std::string_view kMagic = "\x93NUMPY";

std::string wrapped(const fuzz::Scratch& scratch, const std::string& input) {
  const std::string path = scratch.path() + "/wrapped.npz";
  archives::ZipWriter out(path);
  size_t at = 0;
  for (const char* name : {"mu.npy", "sigma.npy", "arr_0.npy", "mu_s.npy", "sigma_s.npy"}) {
    const size_t end = std::min(input.find(kMagic, at + 1), input.size());
    out.add(name, std::string_view(input).substr(at, end - at));
    at = end;
    if (at == input.size()) break;
  }
  out.commit();
  return path;
}

std::string read(const fuzz::Scratch& scratch, const std::string& input) {
  const bool whole = input.starts_with("PK");
  const evaluate::NpzSet set(whole ? scratch.write("input.npz", input) : wrapped(scratch, input));
  std::string found = whole ? "archive" : "arrays";
  for (const auto which : {NpzStatistics::kPool, NpzStatistics::kSpatial}) {
    if (!set.features(which)) continue;
    constexpr int64_t kFeatures = 3;
    const evaluate::Gaussian gaussian = set.gaussian(which, kFeatures);
    VARSCALE_CHECK(gaussian.mean_D.numel() == kFeatures && gaussian.covariance_DD.numel() == kFeatures * kFeatures,
                   "statistics of {} and {} numbers", gaussian.mean_D.numel(), gaussian.covariance_DD.numel());
    VARSCALE_CHECK(at::equal(gaussian.covariance_DD, gaussian.covariance_DD.t()), "an asymmetric covariance");
    VARSCALE_CHECK(gaussian.covariance_DD.isfinite().all().item<bool>(), "a covariance that is not finite");
    found += " statistics";
  }
  int64_t sum = 0;
  for (int64_t i = 0; i < set.size(); i += 4) {
    const at::Tensor batch = set.batch(i, 4);
    VARSCALE_CHECK(batch.size(0) == std::min<int64_t>(4, set.size() - i) && batch.size(2) == set.height(),
                   "{} images at {} of {}", batch.size(0), i, set.size());
    sum += batch.sum().item<int64_t>();
    if (i > 1000) break;
  }
  return fmt::format("{} {}", found, set.size() == 0 ? "none" : sum == 0 ? "black" : "images");
}

}  // namespace
}  // namespace varscale

int main(int argc, char** argv) {
  const varscale::fuzz::Scratch scratch;
  return varscale::fuzz::run(
      argc, argv,
      {.name = "npz",
       .dictionary = {"\x93NUMPY\x01", "'descr': ", "'fortran_order': ", "'shape': ", "'<f8'", "'<f4'", "'|u1'",
                      "'>f8'", "'|O'", "True", "False", "(3,)", "(3, 3)", "(2, 2, 2, 3)", "()", "(0,)",
                      "(9223372036854775807,)", "(4294967296, 4294967296)", "(3L,)", "mu.npy", "sigma.npy",
                      "arr_0.npy", "mu_s.npy", "PK\x01\x02", "PK\x03\x04", "PK\x05\x06", "PK\x06\x06",
                      std::string("\0\0\0\0\0\0\xf8\x7f", 8), std::string("\0\0\0\0\0\0\xf0\xff", 8)},
       .seeds = {},
       .read = [&](const std::string& input) { return varscale::read(scratch, input); }});
}
