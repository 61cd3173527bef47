// Reads the images of an .npz set through the library's reader, for tests/programs/large_archive_test.py.
//
//   npz_rows samples.npz                 all of them; the archive's checksum is compared at the end
//   npz_rows samples.npz --from 61990    from this one on: the others are passed over by a seek
//
// Prints the number of images, their height and width, and SHA-256 over the pixels read, [B,H,W,3] in the file's order.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "base/command_line.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "evaluate/npz_set.hpp"

namespace varscale {
namespace {

constexpr int64_t kTogether = 64;

base::ExitCode run(int argc, char** argv) {
  CLI::App app("Reads the images of an .npz set.", "npz_rows");
  std::filesystem::path path;
  int64_t from = 0;
  app.add_option("FILE", path)->required();
  app.add_option("--from", from);
  if (!base::parse_command_line(app, argc, argv)) return base::ExitCode::kDone;
  const evaluate::NpzSet set(path);
  if (from < 0 || from >= set.size()) throw base::UserError("--from {}: expected 0 to {}", from, set.size() - 1);
  base::Sha256 sum;
  for (int64_t begin = from; begin < set.size(); begin += kTogether) {
    const at::Tensor pixels_BHW3 = set.batch(begin, kTogether).permute({0, 2, 3, 1}).contiguous();
    sum.update(pixels_BHW3.const_data_ptr<uint8_t>(), pixels_BHW3.nbytes());
  }
  fmt::print("{} {} {} {}\n", set.size(), set.height(), set.width(), sum.hex());
  return base::ExitCode::kDone;
}

}  // namespace
}  // namespace varscale

int main(int argc, char** argv) {
  return varscale::base::run_main("npz_rows", [&] { return varscale::run(argc, argv); });
}
