// The .pth reader: what is accepted lies inside the file, and can be walked and read. An input that is no archive is
// taken as the pickle of one, which a changed byte in an archive would only give a wrong checksum.
#include <fmt/format.h>

#include "archives/pth_file.hpp"
#include "base/error.hpp"
#include "tests/fuzz/driver.hpp"

namespace varscale {
namespace {

using archives::PthValue;
using Kind = PthValue::Kind;

struct Seen {
  size_t values = 0, tensors = 0;
  unsigned sum = 0;
};

void walk(const archives::PthFile& file, const PthValue& value, Seen& seen) {
  if (++seen.values > 100'000) return;
  switch (value.kind()) {
    case Kind::kText:
    case Kind::kBytes:
      for (const char c : value.text()) seen.sum += static_cast<unsigned char>(c);
      return;
    case Kind::kTensor: {
      const archives::PthTensor& tensor = value.tensor();
      constexpr uint64_t kMostBytes = 1 << 23;
      VARSCALE_CHECK(tensor.bytes() <= kMostBytes, "a tensor of {} bytes", tensor.bytes());
      VARSCALE_CHECK(tensor.shape.size() == tensor.strides.size(), "sizes and strides");
      std::vector<unsigned char> bytes(tensor.bytes());
      file.read(tensor, bytes.data());
      for (const unsigned char byte : bytes) seen.sum += byte;
      ++seen.tensors;
      return;
    }
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kSet:
    case Kind::kDict:
      for (size_t i = 0; i < value.size(); ++i) {
        if (value.kind() == Kind::kDict) walk(file, value.key(i), seen);
        walk(file, value.item(i), seen);
      }
      return;
    default:
      return;
  }
}

std::string read(const fuzz::Scratch& scratch, const std::string& input) {
  std::string path;
  const bool whole = input.starts_with("PK") || input.starts_with("\x80\x02\x8a\x0a");
  if (whole) {
    path = scratch.write("input.pth", input);
  } else {
    path = scratch.path() + "/wrapped.pth";
    archives::ZipWriter out(path);
    out.add("w/data.pkl", input);
    // Storages of the corpus's pickles.
    const size_t sizes[] = {48, 48, 192, 192, 96, 24, 24, 96, 4, 0, 8, 256, 3584, 112, 784};
    for (size_t i = 0; i < std::size(sizes); ++i) out.add(fmt::format("w/data/{}", i), std::string(sizes[i], 'x'));
    out.commit();
  }
  const archives::PthFile file(path);
  Seen seen;
  walk(file, file.root(), seen);
  return fmt::format("{} {} {}", whole ? "archive" : "pickle", seen.tensors == 0 ? "none" : "tensors",
                     seen.values > 10 ? "many" : "few");
}

}  // namespace
}  // namespace varscale

int main(int argc, char** argv) {
  const varscale::fuzz::Scratch scratch;
  return varscale::fuzz::run(argc, argv,
                             {.name = "pth",
                              .dictionary = {"ctorch._utils\n_rebuild_tensor_v2\n",
                                             "ctorch._utils\n_rebuild_parameter\n",
                                             "ccollections\nOrderedDict\n",
                                             "ctorch\nFloatStorage\n",
                                             "ctorch\nHalfStorage\n",
                                             "ctorch\nSize\n",
                                             "ctorch\ndevice\n",
                                             "ctorch\nfloat32\n",
                                             "c__builtin__\nset\n",
                                             "c_codecs\nencode\n",
                                             "cos\nsystem\n",
                                             "X\x07\x01\x01\x01",
                                             "storage",
                                             "cpu",
                                             "K\x01",
                                             "J\xff\xff\xff\xff",
                                             "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
                                             "\x85",
                                             "\x86",
                                             "\x87",
                                             ")R",
                                             "}(",
                                             "](",
                                             "q\x01",
                                             "h\x01",
                                             "tR",
                                             "tQ",
                                             "u",
                                             "e",
                                             "s",
                                             "b",
                                             "N",
                                             "\x88",
                                             "PK\x01\x02",
                                             "PK\x03\x04",
                                             "PK\x05\x06",
                                             "PK\x06\x06"},
                              .seeds = {},
                              .read = [&](const std::string& input) { return varscale::read(scratch, input); }});
}
