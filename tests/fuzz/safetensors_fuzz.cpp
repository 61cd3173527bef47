// The safetensors reader: what is accepted must lie inside the file, without overlap.
#include <fmt/format.h>

#include <cstring>

#include "base/error.hpp"
#include "base/safetensors.hpp"
#include "tests/fuzz/driver.hpp"

namespace varscale {
namespace {

std::string read(const fuzz::Scratch& scratch, const std::string& input) {
  const base::SafetensorsFile file(scratch.write("input.safetensors", input));
  size_t bytes = 0;
  unsigned sum = 0;
  for (const auto& [name, view] : file.tensors()) {
    int64_t elements = 1;
    for (const int64_t size : view.shape) {
      VARSCALE_CHECK(size >= 0, "a size of {}", name);
      elements = size == 0 || elements == 0 ? 0 : elements * size;
    }
    VARSCALE_CHECK(elements == view.numel(), "elements of {}", name);
    VARSCALE_CHECK(static_cast<size_t>(elements) * base::dtype_size(view.dtype) == view.bytes, "bytes of {}", name);
    for (size_t i = 0; i < view.bytes; ++i) sum += static_cast<unsigned>(view.data[i]);
    bytes += view.bytes;
    VARSCALE_CHECK(&file.at(name) == &view, "{} is not found", name);
  }
  VARSCALE_CHECK(bytes <= input.size(), "{} bytes of {}", bytes, input.size());
  try {
    file.at("no such tensor");
    VARSCALE_CHECK(file.contains("no such tensor"), "an unknown tensor is found");
  } catch (const base::UserError&) {
  }
  return fmt::format("{} {} {}", file.tensors().empty() ? "none" : "some", file.metadata().empty() ? "plain" : "metadata",
                     sum == 0 ? "zeros" : "values");
}

}  // namespace
}  // namespace varscale

int main(int argc, char** argv) {
  const varscale::fuzz::Scratch scratch;
  return varscale::fuzz::run(
      argc, argv,
      {.name = "safetensors",
       .dictionary = {"\"dtype\"", "\"shape\"", "\"data_offsets\"", "\"__metadata__\"", "\"F32\"", "\"F64\"",
                      "\"BF16\"", "\"I64\"", "\"BOOL\"", "\"U8\"", "{", "}", "[", "]", ",", ":", "[]", "[0]", "[0,0]",
                      "[9223372036854775807]", "[4294967296,4294967296]", "-1", "1.5", "1e999", "null", "{}",
                      std::string("\x10\0\0\0\0\0\0\0", 8), std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8)},
       .seeds = {},
       .read = [&](const std::string& input) { return varscale::read(scratch, input); }});
}
