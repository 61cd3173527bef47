#include "base/safetensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/json.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::base {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Shape = std::vector<int64_t>;

// A file with this header text and this many bytes of data.
std::string file_bytes(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
  return bytes + header + std::string(data_bytes, '\1');
}

TEST(Safetensors, ReadsTheFixtureThatPythonWrote) {
  // Shapes from tests/fixtures/README.md, section 1.
  const SafetensorsFile file(fs::path(std::getenv("VARSCALE_FIXTURES")) / "vqvae_64.safetensors");
  EXPECT_EQ(file.at("image_u8").shape, (Shape{2, 3, 64, 64}));
  EXPECT_EQ(file.at("image_u8").dtype, DType::kU8);
  EXPECT_EQ(file.at("f").shape, (Shape{2, 32, 4, 4}));
  EXPECT_EQ(file.at("f").dtype, DType::kF32);
  EXPECT_EQ(file.at("f").numel(), 1024);
  EXPECT_EQ(file.at("f").bytes, 4096u);
  EXPECT_EQ(file.at("idx.3").shape, (Shape{2, 16}));
  EXPECT_EQ(file.at("var_input").shape, (Shape{2, 29, 32}));
  // image is image_u8 / 255, doubled, minus one: every value is checked through the two views.
  const TensorView &u8 = file.at("image_u8"), &image = file.at("image");
  for (int64_t i = 0; i < u8.numel(); ++i) {
    float value;
    std::memcpy(&value, image.data + 4 * i, sizeof value);
    const float x = static_cast<float>(u8.data[i]) / 255.0f;
    ASSERT_NEAR(value, x + x - 1, 1.2e-7);  // one rounding in float near 1
  }
}

TEST(Safetensors, ReadsBackWhatItWrote) {
  const TemporaryFolder folder;
  const std::vector<float> weights = {1.5f, -2, 3, 4, 5, 6};
  const std::vector<int64_t> steps = {1, -2};
  const unsigned char flags[3] = {1, 0, 1};
  const double scalar = 0.25;
  SafetensorsWriter writer;
  writer.add("flags", DType::kBool, {3}, flags);
  writer.add("weights", DType::kF32, {2, 3}, weights.data());
  writer.add("steps", DType::kI64, {2}, steps.data());
  writer.add("scalar", DType::kF64, {}, &scalar);
  writer.add("empty", DType::kBF16, {4, 0, 2}, nullptr);
  writer.set_metadata("format", "pt");
  writer.save(folder / "a.safetensors");

  const SafetensorsFile file(folder / "a.safetensors");
  EXPECT_EQ(file.tensors().size(), 5u);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.at("weights").shape, (Shape{2, 3}));
  EXPECT_EQ(std::memcmp(file.at("weights").data, weights.data(), 24), 0);
  EXPECT_EQ(std::memcmp(file.at("steps").data, steps.data(), 16), 0);
  EXPECT_EQ(std::memcmp(file.at("flags").data, flags, 3), 0);
  EXPECT_EQ(std::memcmp(file.at("scalar").data, &scalar, 8), 0);
  EXPECT_EQ(file.at("scalar").numel(), 1);
  EXPECT_TRUE(file.at("scalar").shape.empty());
  EXPECT_EQ(file.at("empty").numel(), 0);
  EXPECT_EQ(file.at("empty").shape, (Shape{4, 0, 2}));
  EXPECT_TRUE(file.contains("flags"));
  EXPECT_FALSE(file.contains("__metadata__"));
}

TEST(Safetensors, AlignsEveryTensorToItsElements) {
  const TemporaryFolder folder;
  const std::vector<char> bytes(64);
  SafetensorsWriter writer;
  writer.add("odd bytes", DType::kU8, {3}, bytes.data());
  writer.add("half", DType::kF16, {3}, bytes.data());
  writer.add("float", DType::kF32, {1}, bytes.data());
  writer.add("double", DType::kF64, {1}, bytes.data());
  writer.save(folder / "a.safetensors");
  const SafetensorsFile file(folder / "a.safetensors");
  for (const auto& [name, view] : file.tensors())
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data) % dtype_size(view.dtype), 0u) << name;
}

// Another reader on the same bytes: Python's safetensors where setup.sh has installed it; where
// not, the layout decoded here by the format's description, without the reader under test.
TEST(Safetensors, WritesWhatAnotherReaderReads) {
  const TemporaryFolder folder;
  const std::vector<float> weights = {1.5f, -2, 3, 4, 5, 6};
  const std::vector<int64_t> steps = {7, -8};
  SafetensorsWriter writer;
  writer.add("a.weight", DType::kF32, {2, 3}, weights.data());
  writer.add("steps", DType::kI64, {2}, steps.data());
  writer.set_metadata("made by", "varscale");
  const fs::path path = folder / "a.safetensors";
  writer.save(path);

  const fs::path python = fs::path(std::getenv("VARSCALE_SOURCE")) / ".deps/venv/bin/python";
  if (fs::exists(python)) {
    const fs::path script = folder.write(
        "read.py",
        "import sys\n"
        "from safetensors import safe_open\n"
        "with safe_open(sys.argv[1], 'numpy') as f:\n"
        "    a, s = f.get_tensor('a.weight'), f.get_tensor('steps')\n"
        "    print(sorted(f.keys()), f.metadata(), a.dtype, a.tolist(), s.dtype, s.tolist())\n");
    FILE* pipe =
        popen((python.string() + " " + script.string() + " " + path.string()).c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    std::string text(4096, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), pipe));
    EXPECT_EQ(pclose(pipe), 0);
    EXPECT_EQ(text,
              "['a.weight', 'steps'] {'made by': 'varscale'} float32 [[1.5, -2.0, 3.0], "
              "[4.0, 5.0, 6.0]] int64 [7, -8]\n");
  } else {
    const std::string bytes = read_file(path);
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    EXPECT_EQ(length % 8, 0u);
    const auto header = parse_json(bytes.substr(8, length));
    EXPECT_EQ(header["a.weight"]["dtype"], "F32");
    EXPECT_EQ(header["a.weight"]["shape"], (nlohmann::ordered_json{2, 3}));
    const size_t begin = header["a.weight"]["data_offsets"][0];
    EXPECT_EQ(std::memcmp(bytes.data() + 8 + length + begin, weights.data(), 24), 0);
    EXPECT_EQ(header["__metadata__"]["made by"], "varscale");
  }
}

TEST(Safetensors, NamesTheNearestKeyWhenOneIsMissing) {
  const TemporaryFolder folder;
  const float value = 1;
  SafetensorsWriter writer;
  writer.add("encoder.conv_in.weight", DType::kF32, {1}, &value);
  writer.save(folder / "a.safetensors");
  const SafetensorsFile file(folder / "a.safetensors");
  const std::string name = (folder / "a.safetensors").string();
  EXPECT_EQ(message_of<UserError>([&] { file.at("encodr.conv_in.weight"); }),
            name +
                ": no tensor 'encodr.conv_in.weight' among 1; did you mean "
                "'encoder.conv_in.weight'?");
  EXPECT_EQ(message_of<UserError>([&] { file.at("x"); }), name + ": no tensor 'x' among 1");
}

struct Malformed {
  const char* name;
  std::string bytes;
  const char* says;
};

TEST(Safetensors, RefusesEveryMalformedFileWithItsReason) {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const std::string two_to_62 = "4611686018427387904";
  const std::vector<Malformed> table = {
      {"empty", "", "0 bytes long"},
      {"seven bytes", "1234567", "7 bytes long"},
      {"huge header", std::string(8, '\xff'), "header of 18446744073709551615 bytes"},
      {"text file", "This is a README, not weights.", "not a safetensors file"},
      {"cut in the header", file_bytes(good, 0).substr(0, 30), "truncated"},
      {"cut in the data", file_bytes(good, 7), "ends at byte 8 of the data, but only 7"},
      {"trailing bytes", file_bytes(good, 9), "1 bytes behind the last tensor"},
      {"no JSON", file_bytes("{\"a\":", 0), "not valid JSON"},
      {"bad UTF-8", file_bytes("{\"\xff\xfe\":1}", 0), "not valid JSON"},
      {"empty header", file_bytes("", 0), "not valid JSON"},
      {"a list", file_bytes("[1]", 0), "not a JSON object"},
      {"no object", file_bytes(R"({"a":3})", 0), "needs a dtype"},
      {"no shape", file_bytes(R"({"a":{"dtype":"F32","data_offsets":[0,0]}})", 0), "needs a dtype"},
      {"no offsets", file_bytes(R"({"a":{"dtype":"F32","shape":[0]}})", 0), "needs a dtype"},
      {"one offset", file_bytes(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0]}})", 0),
       "needs a dtype"},
      {"negative size", file_bytes(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8),
       "needs a dtype"},
      {"fractional size",
       file_bytes(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8),
       "needs a dtype"},
      {"dtype is a number", file_bytes(R"({"a":{"dtype":32,"shape":[2],"data_offsets":[0,8]}})", 8),
       "needs a dtype"},
      {"unknown dtype",
       file_bytes(R"({"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}})", 8),
       "unknown dtype 'F8_E4M3'"},
      {"backwards", file_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8),
       "before it begins"},
      {"wrong size", file_bytes(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8),
       "'a' has 8 bytes, which is not what F32 of shape [3] takes"},
      {"overflowing shape",
       file_bytes(R"({"a":{"dtype":"F32","shape":[)" + two_to_62 + "," + two_to_62 +
                      R"(],"data_offsets":[0,8]}})",
                  8),
       "which is not what F32"},
      {"overlap",
       file_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                  R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                  12),
       "'a' and 'b' overlap"},
      {"hole",
       file_bytes(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                  R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
                  12),
       "4 bytes before tensor 'b'"},
      {"listed twice",
       file_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                  R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                  8),
       "'a' is listed twice"},
      {"metadata is a text", file_bytes(R"({"__metadata__":"x"})", 0), "not a map of texts"},
      {"metadata holds a number", file_bytes(R"({"__metadata__":{"x":1}})", 0),
       "'x' is not a text"},
  };
  const TemporaryFolder folder;
  for (const Malformed& row : table) {
    const fs::path path = folder.write("bad.safetensors", row.bytes);
    const std::string message = message_of<UserError>([&] { SafetensorsFile file(path); });
    EXPECT_THAT(message, HasSubstr(path.string() + ": ")) << row.name;
    EXPECT_THAT(message, HasSubstr(row.says)) << row.name;
  }
  // The frame of the table is right: with its data the good header is read.
  EXPECT_EQ(SafetensorsFile(folder.write("good", file_bytes(good, 8))).at("a").numel(), 2);
}

TEST(SafetensorsWriter, RefusesNamesTwiceAndImpossibleShapes) {
  const float value = 1;
  SafetensorsWriter writer;
  writer.add("a", DType::kF32, {1}, &value);
  EXPECT_THROW(writer.add("a", DType::kF32, {1}, &value), InvariantError);
  EXPECT_THROW(writer.add("__metadata__", DType::kF32, {1}, &value), InvariantError);
  EXPECT_THROW(writer.add("b", DType::kF32, {-1}, &value), InvariantError);
  EXPECT_THROW(writer.add("c", DType::kF32, {1}, nullptr), InvariantError);
}

TEST(DType, HasTheFormatsNamesAndSizes) {
  EXPECT_EQ(dtype_name(DType::kF64), "F64");
  EXPECT_EQ(dtype_name(DType::kBF16), "BF16");
  EXPECT_EQ(dtype_name(DType::kBool), "BOOL");
  EXPECT_EQ(dtype_name(DType::kU16), "U16");
  EXPECT_EQ(dtype_size(DType::kF64), 8u);
  EXPECT_EQ(dtype_size(DType::kBF16), 2u);
  EXPECT_EQ(dtype_size(DType::kBool), 1u);
}

}  // namespace
}  // namespace varscale::base
