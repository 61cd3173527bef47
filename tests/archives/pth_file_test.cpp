#include "archives/pth_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>

#include "base/error.hpp"
#include "tests/archives/fixture.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::archives {
namespace {

using base::DType;
using base::UserError;
using testing::ElementsAre;
using testing::HasSubstr;
using Kind = PthValue::Kind;

std::string key_text(const PthValue& key) {
  return key.kind() == Kind::kInt ? std::to_string(key.integer()) : std::string(key.text());
}

// Calls back with every tensor below, under its keys with dots between.
void each_tensor(const PthValue& value, const std::string& name,
                 const std::function<void(const std::string&, const PthTensor&)>& call) {
  if (value.kind() == Kind::kTensor) return call(name, value.tensor());
  if (value.kind() != Kind::kDict) return;
  for (size_t i = 0; i < value.size(); ++i)
    each_tensor(value.item(i), (name.empty() ? "" : name + ".") + key_text(value.key(i)), call);
}

std::string read_all(const PthFile& file, const PthTensor& tensor) {
  std::string bytes(tensor.bytes(), '?');
  file.read(tensor, bytes.data());
  return bytes;
}

// Every tensor of the file, or of the part below a key, is in the safetensors file, and the other way round.
void expect_equal(const std::string& pth, const std::string& safetensors, const std::string& part = "") {
  const PthFile file(fixture(pth + ".pth"));
  const base::SafetensorsFile expected(fixture(safetensors + ".safetensors"));
  size_t seen = 0;
  each_tensor(
      part.empty() ? file.root() : *file.root().find(part), "", [&](const std::string& name, const PthTensor& tensor) {
        if (name.starts_with("trainer.vae_local.")) return;  // the part of its own
        const base::TensorView& view = expected.at(name);
        EXPECT_EQ(tensor.dtype, view.dtype) << name;
        EXPECT_EQ(tensor.shape, view.shape) << name;
        EXPECT_EQ(read_all(file, tensor), std::string(reinterpret_cast<const char*>(view.data), view.bytes)) << name;
        ++seen;
      });
  EXPECT_EQ(seen, expected.tensors().size());
}

TEST(PthFile, EqualsTheSafetensorsOfTheSameTensors) {
  expect_equal("var_d1_tiny", "var_d1_tiny");
  expect_equal("vae_tiny_part", "vae_tiny_part");
  expect_equal("trainer_ckpt_tiny", "trainer_ckpt_tiny");
  expect_equal("misc_types", "misc_types", "sd");
}

TEST(PthFile, KeepsTheOrderOfTheKeys) {
  const PthFile file(fixture("var_d1_tiny.pth"));
  ASSERT_EQ(file.root().size(), 25u);
  EXPECT_EQ(file.root().key(0).text(), "pos_start");
  EXPECT_EQ(file.root().key(2).text(), "lvl_1L");
  EXPECT_EQ(file.root().key(24).text(), "head.bias");
}

TEST(PthFile, ReadsPlainValues) {
  const PthFile file(fixture("misc_types.pth"));
  const PthValue py = *file.root().find("py");
  EXPECT_EQ(py.find("int")->integer(), 7);
  EXPECT_EQ(py.find("neg")->integer(), -5);
  EXPECT_EQ(py.find("big")->integer(), int64_t{1} << 40);
  EXPECT_EQ(py.find("float")->real(), 0.1);
  EXPECT_EQ(py.find("str")->text(), "h\xc3\xa9llo");
  EXPECT_EQ(py.find("none")->kind(), Kind::kNone);
  EXPECT_TRUE(py.find("bool")->boolean());
  EXPECT_FALSE(py.find("f")->boolean());
  EXPECT_EQ(py.find("bytes")->kind(), Kind::kBytes);
  EXPECT_EQ(py.find("bytes")->text(), "ab");
  EXPECT_EQ(py.find("set")->kind(), Kind::kSet);
  EXPECT_EQ(py.find("set")->size(), 2u);
  EXPECT_EQ(py.find("empty")->size(), 0u);
  EXPECT_EQ(py.find("list")->item(1).item(1).integer(), 3);
  EXPECT_EQ(py.find("t")->item(1).real(), 2.5);
  EXPECT_FALSE(py.find("other").has_value());
}

TEST(PthFile, ReadsTheOlderForm) {
  const PthFile file(fixture("legacy_format.pth"));
  EXPECT_TRUE(file.is_older_form());
  const PthTensor& a = file.root().find("a")->tensor();
  EXPECT_THAT(a.shape, ElementsAre(4, 6));
  std::vector<float> values(24);
  file.read(a, values.data());
  for (int i = 0; i < 24; ++i) EXPECT_EQ(values[static_cast<size_t>(i)], static_cast<float>(i));
  EXPECT_EQ(file.root().find("b")->tensor().dtype, DType::kF16);
  const std::string half = read_all(file, file.root().find("b")->tensor());
  EXPECT_EQ(half.substr(0, 6), std::string("\0\0\0\x3c\0\x40", 6));  // 0, 1, 2
}

TEST(PthFile, OfTheOlderFormIsRefusedWhereverItIsCut) {
  const base::TemporaryFolder folder;
  const std::string bytes = base::read_file(fixture("legacy_format.pth"));
  for (size_t count = 0; count < bytes.size(); ++count) {
    std::ofstream(folder.path() / "a.pth", std::ios::binary) << bytes.substr(0, count);
    EXPECT_THROW(PthFile file(folder.path() / "a.pth"), UserError) << count;
  }
  base::write_file_atomic(folder.path() / "a.pth", bytes + "x");
  EXPECT_THROW(PthFile file(folder.path() / "a.pth"), UserError);
}

// --- files made here ---
class Pth : public testing::Test {
 protected:
  base::TemporaryFolder folder_;
  std::filesystem::path path_ = folder_.path() / "w.pth";

  // An archive with this pickle and storage 0 of eight floats.
  std::string refusal(const std::string& pickle, const std::function<void(ZipWriter&)>& more = {}) {
    {
      ZipWriter out(path_);
      out.add("w/data.pkl", pickle);
      std::string floats(32, '\0');
      for (size_t i = 0; i < 8; ++i) {
        const auto value = static_cast<float>(i);
        std::memcpy(floats.data() + 4 * i, &value, 4);
      }
      out.add("w/data/0", floats);
      if (more) more(out);
      out.commit();
    }
    try {
      const PthFile file(path_);
      each_tensor(file.root(), "", [&](const std::string&, const PthTensor& tensor) { read_all(file, tensor); });
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), HasSubstr(path_.string()));
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      return error.what();
    }
    return "";
  }
  static std::string text(const std::string& value) {
    std::string bytes = "X";
    for (int i = 0; i < 4; ++i) bytes += static_cast<char>(value.size() >> (8 * i));
    return bytes + value;
  }
  static std::string number(int64_t value) {
    std::string bytes = "\x8a\x08";
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i));
    return bytes;
  }
  static std::string tuple(const std::vector<int64_t>& values) {
    std::string bytes = "(";
    for (const int64_t value : values) bytes += number(value);
    return bytes + "t";
  }
  static std::string storage(const std::string& type = "FloatStorage", const std::string& key = "0",
                             int64_t numel = 8) {
    return "(" + text("storage") + "ctorch\n" + type + "\n" + text(key) + text("cpu") + number(numel) + "tQ";
  }
  static std::string tensor(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides, int64_t offset,
                            const std::string& stored) {
    return "ctorch._utils\n_rebuild_tensor_v2\n(" + stored + number(offset) + tuple(shape) + tuple(strides) +
           "\x89"
           "ccollections\nOrderedDict\n)RtR";
  }
  static std::string tensor(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides,
                            int64_t offset = 0) {
    return tensor(shape, strides, offset, storage());
  }
  static std::string pickle(const std::string& code) { return "\x80\x02" + code + "."; }
};

TEST_F(Pth, ReadsStridedTensorsInRowOrder) {
  ASSERT_EQ(refusal(pickle("}(" + text("t") + tensor({2, 3}, {1, 2}, 1) + text("e") + tensor({2, 2}, {0, 1}) +
                           text("z") + tensor({0, 5}, {5, 1}, 8) + text("s") + tensor({}, {}, 7) + "u")),
            "");
  const PthFile file(path_);
  const auto floats = [&](const char* name) {
    const PthTensor& tensor = file.root().find(name)->tensor();
    std::vector<float> values(static_cast<size_t>(tensor.numel()));
    file.read(tensor, values.data());
    return values;
  };
  EXPECT_THAT(floats("t"), ElementsAre(1, 3, 5, 2, 4, 6));
  EXPECT_THAT(floats("e"), ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(floats("z"), ElementsAre());
  EXPECT_THAT(floats("s"), ElementsAre(7));
}

TEST_F(Pth, NamesAGlobalThatIsNotKnown) {
  for (const auto& [module, name] :
       std::vector<std::pair<std::string, std::string>>{{"os", "system"},
                                                        {"posix", "system"},
                                                        {"builtins", "eval"},
                                                        {"__builtin__", "exec"},
                                                        {"builtins", "getattr"},
                                                        {"torch.storage", "_load_from_bytes"},
                                                        {"torch.storage", "UntypedStorage"},
                                                        {"torch", "load"},
                                                        {"torch", "_utils._rebuild_tensor_v2"},
                                                        {"torch._utils", "_rebuild_device_tensor_from_numpy"},
                                                        {"numpy.core.multiarray", "scalar"},
                                                        {"subprocess", "Popen"},
                                                        {"collections", "OrderedDict.fromkeys"}}) {
    const std::string sentence = refusal(pickle("c" + module + "\n" + name + "\n" + text("touch /tmp/x") + "\x85R"));
    EXPECT_THAT(sentence, HasSubstr("names " + module + "." + name + ", which is not among"));
  }
}

TEST_F(Pth, RefusesOperationsThatTorchDoesNotWrite) {
  // Objects by class, by instance, by extension number; persistent ids and strings as text; other protocols.
  for (const char code : std::string("iocIPSVL\x81\x82\x83\x84\x92\x93\x94\x95\x96"))
    EXPECT_NE(refusal(pickle(std::string(1, code) + "a\nb\n")), "") << code;
  EXPECT_THAT(refusal("\x80\x04N."), HasSubstr("pickle protocol 4; expected 2"));
  EXPECT_NE(refusal(pickle("N\x80\x02")), "");
}

TEST_F(Pth, RefusesTensorsOutsideTheirStorage) {
  EXPECT_EQ(refusal(pickle(tensor({8}, {1}))), "");
  EXPECT_THAT(refusal(pickle(tensor({9}, {1}))), HasSubstr("reaches beyond its storage of 8 elements"));
  EXPECT_THAT(refusal(pickle(tensor({8}, {1}, 1))), HasSubstr("reaches beyond"));
  EXPECT_THAT(refusal(pickle(tensor({1}, {1}, 9))), HasSubstr("begins outside"));
  EXPECT_THAT(refusal(pickle(tensor({1}, {1}, -1))), HasSubstr("begins outside"));
  EXPECT_THAT(refusal(pickle(tensor({2}, {-1}, 4))), HasSubstr("a tensor's stride of -1"));
  EXPECT_THAT(refusal(pickle(tensor({-2}, {1}))), HasSubstr("a tensor's size of -2"));
  EXPECT_THAT(refusal(pickle(tensor({2}, {INT64_MAX}))), HasSubstr("reaches beyond"));
  EXPECT_THAT(refusal(pickle(tensor({INT64_MAX, 3}, {0, 0}))), HasSubstr("more elements than 64 bits count"));
  EXPECT_THAT(refusal(pickle(tensor({INT64_MAX, 0, INT64_MAX}, {0, 0, 0}))), HasSubstr("more elements than"));
  EXPECT_THAT(refusal(pickle(tensor({1 << 21}, {0}))), HasSubstr("repeats the elements"));
  EXPECT_THAT(refusal(pickle(tensor({2, 2}, {1}))), HasSubstr("2 sizes and 1 strides"));
  EXPECT_THAT(refusal(pickle(tensor(std::vector<int64_t>(65, 1), std::vector<int64_t>(65, 1)))),
              HasSubstr("65 dimensions"));
}

TEST_F(Pth, RefusesStoragesThatAreNotWhatTheySay) {
  EXPECT_THAT(refusal(pickle(tensor({8}, {1}, 0, storage("FloatStorage", "1")))), HasSubstr("no entry data/1"));
  EXPECT_THAT(refusal(pickle(tensor({8}, {1}, 0, storage("FloatStorage", "../0")))), HasSubstr("no entry"));
  EXPECT_THAT(refusal(pickle(tensor({8}, {1}, 0, storage("DoubleStorage")))),
              HasSubstr("has 32 bytes; 8 elements of F64 take 64"));
  EXPECT_THAT(refusal(pickle(tensor({4}, {1}, 0, storage("FloatStorage", "0", -4)))), HasSubstr("of -4 elements"));
  EXPECT_THAT(refusal(pickle(tensor({4}, {1}, 0, storage("FloatStorage", "0", INT64_MAX)))), HasSubstr("elements"));
  EXPECT_THAT(refusal(pickle("(" + tensor({8}, {1}) + tensor({8}, {1}, 0, storage("IntStorage")) + "t")),
              HasSubstr("is used as F32 of 8 elements and as I32 of 8"));
  EXPECT_THAT(refusal(pickle(storage())), HasSubstr("a storage stands where a value is expected"));
  EXPECT_THAT(refusal(pickle("ctorch\nFloatStorage\n)R")), HasSubstr("calls the type of a storage"));
}

TEST_F(Pth, RefusesValuesThatContainThemselvesOrNestTooDeep) {
  EXPECT_THAT(refusal(pickle("]q\x01h\x01"
                             "a")),
              HasSubstr("a value contains itself"));
  EXPECT_THAT(refusal(pickle("}q\x01" + text("k") +
                             "]h\x01"
                             "as")),
              HasSubstr("a value contains itself"));
  std::string deep;
  for (int i = 0; i < 1'000'000; ++i) deep += "(";
  deep += "N";
  for (int i = 0; i < 1'000'000; ++i) deep += "t";
  EXPECT_THAT(refusal(pickle(deep)), HasSubstr("nest more than 64 deep"));
  std::string laughs = "((NNNNNNNNNNt";  // each tuple ten times the one before
  for (char i = 1; i <= 12; ++i) {
    laughs += std::string("q") + i + "(";
    for (int k = 0; k < 10; ++k) laughs += std::string("h") + i;
    laughs += "t";
  }
  EXPECT_THAT(refusal(pickle(laughs + "t")), HasSubstr("come to more than 16000000"));
}

TEST_F(Pth, RefusesBrokenPickles) {
  EXPECT_THAT(refusal("\x80\x02"), HasSubstr("truncated"));
  EXPECT_THAT(refusal(pickle("")), HasSubstr("ends with 0 values"));
  EXPECT_THAT(refusal(pickle("NN")), HasSubstr("ends with 2 values"));
  EXPECT_THAT(refusal(pickle("(N")), HasSubstr("ends with"));
  EXPECT_THAT(refusal(pickle("t")), HasSubstr("a mark that is not there"));
  EXPECT_THAT(refusal(pickle("(\x85")), HasSubstr("empty stack"));
  EXPECT_THAT(refusal(pickle("h\x05")), HasSubstr("remembered value 5"));
  EXPECT_THAT(refusal(pickle("Na")), HasSubstr("empty stack"));
  EXPECT_THAT(refusal(pickle("NNa")), HasSubstr("is None, expected a list"));
  EXPECT_THAT(refusal(pickle("}]Ns")), HasSubstr("a list as a key"));
  EXPECT_THAT(refusal(pickle("}(Nu")), HasSubstr("a key without a value"));
  EXPECT_THAT(refusal(pickle("}(" + text("k") + "N" + text("k") + "Nu")), HasSubstr("has key 'k' twice"));
  EXPECT_THAT(refusal(pickle("}(K\x01NK\x01Nu")), HasSubstr("has key 1 twice"));
  EXPECT_THAT(refusal(pickle(text("\xff"))), HasSubstr("not UTF-8"));
  EXPECT_THAT(refusal(pickle("X\xff\xff\xff\xff"
                             "abc")),
              HasSubstr("truncated: 4294967295 bytes"));
  EXPECT_THAT(refusal(pickle("\x8a\x09"
                             "123456789")),
              HasSubstr("an integer of 9 bytes"));
  EXPECT_THAT(refusal(pickle("c" + std::string(300, 'a') + "\nb\n")), HasSubstr("a name without an end"));
  EXPECT_THAT(refusal(pickle("]Nb")), HasSubstr("expected a dict"));
}

TEST_F(Pth, RefusesOtherArchives) {
  const std::string none = pickle("N");
  EXPECT_EQ(refusal(none), "");
  EXPECT_THAT(refusal(none, [](ZipWriter& out) { out.add("w/byteorder", "big"); }), HasSubstr("byteorder is 'big'"));
  EXPECT_THAT(refusal(none, [](ZipWriter& out) { out.add("v/data.pkl", "N."); }), HasSubstr("two data.pkl"));
  ZipWriter out(path_);
  out.add("a/b/data.pkl", none);
  out.commit();
  EXPECT_THROW(PthFile file(path_), UserError);
  EXPECT_THROW(PthFile file(fixture("misc_types.safetensors")), UserError);
}

// Values, tensors, or the bytes of a pickle without end.
TEST_F(Pth, KeepsItsLimits) {
  EXPECT_THAT(refusal(pickle(std::string(2'000'001, 'N'))), HasSubstr("more than 2000000 values"));
  EXPECT_THAT(refusal(pickle("Nq\x01" +
                             [] {
                               std::string code;
                               for (int i = 0; i < 8'000'000; ++i) code += "h\x01";
                               return code;
                             }())),
              HasSubstr("more than 8000000 operations"));
  EXPECT_THAT(refusal(pickle("U\xff")), HasSubstr("truncated"));
}

TEST_F(Pth, WritesWhatItReads) {
  const std::vector<PthWriter::Tensor> tensors = {{"weight", DType::kF32, {2, 3}},
                                                  {"h\xc3\xa9", DType::kI64, {}},
                                                  {"none", DType::kF16, {0, 4}},
                                                  {"flags", DType::kBool, {70'000}},
                                                  {"last", DType::kF32, {0}}};
  std::string bytes(24 + 8 + 70'000, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i % 2);
  {
    PthWriter out(path_, tensors);
    for (size_t at = 0; at < bytes.size(); at += 1000)
      out.write(bytes.data() + at, std::min<size_t>(1000, bytes.size() - at));
    out.commit();
  }
  const PthFile file(path_);
  ASSERT_EQ(file.root().size(), tensors.size());
  std::string back;
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(file.root().key(i).text(), tensors[i].name);
    const PthTensor& tensor = file.root().item(i).tensor();
    EXPECT_EQ(tensor.shape, tensors[i].shape);
    EXPECT_EQ(tensor.dtype, tensors[i].dtype);
    back += read_all(file, tensor);
  }
  EXPECT_EQ(back, bytes);
  EXPECT_THROW(PthWriter(path_, tensors).commit(), base::InvariantError);
}

}  // namespace
}  // namespace varscale::archives
