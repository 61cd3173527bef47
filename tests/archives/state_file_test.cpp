#include "archives/state_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "base/error.hpp"
#include "base/file.hpp"
#include "tests/archives/fixture.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::archives {
namespace {

using base::DType;
using base::UserError;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<std::byte> all_of(const StateFile& file, const std::string& name) {
  std::vector<std::byte> bytes(file.bytes(name));
  file.read(name, bytes.data());
  return bytes;
}

TEST(StateFile, GivesTheSameTensorsOfEitherKind) {
  const StateFile pth = StateFile::open(fixture("var_d1_tiny.pth")),
                  safetensors = StateFile::open(fixture("var_d1_tiny.safetensors"));
  ASSERT_GT(pth.tensors().size(), 10u);
  ASSERT_EQ(pth.tensors().size(), safetensors.tensors().size());
  for (const auto& [name, tensor] : safetensors.tensors()) {
    ASSERT_TRUE(pth.find(name)) << name;
    EXPECT_EQ(pth.at(name).dtype, tensor.dtype) << name;
    EXPECT_EQ(pth.at(name).shape, tensor.shape) << name;
    EXPECT_EQ(all_of(pth, name), all_of(safetensors, name)) << name;
  }
}

TEST(StateFile, TellsTheKindsApartByContent) {
  const base::TemporaryFolder folder;
  std::filesystem::copy(fixture("var_d1_tiny.pth"), folder / "a.safetensors");
  std::filesystem::copy(fixture("var_d1_tiny.safetensors"), folder / "b.pth");
  EXPECT_EQ(all_of(StateFile::open(folder / "a.safetensors"), "head.bias"),
            all_of(StateFile::open(folder / "b.pth"), "head.bias"));
  folder.write("c.pth", "neither of both, though long enough for a head");
  EXPECT_THAT([&] { StateFile::open(folder / "c.pth"); },
              ThrowsMessage<UserError>(HasSubstr("c.pth: not a file of torch.save")));
  folder.write("d.pth", "");
  EXPECT_THROW(StateFile::open(folder / "d.pth"), UserError);
  EXPECT_THROW(StateFile::open(folder / "nowhere.pth"), UserError);
}

// --- files made here: dicts of one tensor w [2, 3] = 0 ... 5, under keys ---
std::string text(const std::string& value) {
  std::string bytes = "X";
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(value.size() >> (8 * i));
  return bytes + value;
}

const std::string kTensor = "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\nFloatStorage\n" +
                            text("0") + text("cpu") + "K\x06tQK" + std::string(1, '\0') +
                            "K\x02K\x03\x86K\x03K\x01\x86\x89"
                            "ccollections\nOrderedDict\n)RtR";

std::string dict(const std::string& items) { return "}(" + items + "u"; }

class StateFileUnderAKey : public testing::Test {
 protected:
  StateFile open(const std::string& code) const {
    ZipWriter out(path_);
    out.add("w/data.pkl", "\x80\x02" + code + ".");
    std::string floats(24, '\0');
    for (size_t i = 0; i < 6; ++i) {
      const auto value = static_cast<float>(i);
      std::memcpy(floats.data() + 4 * i, &value, 4);
    }
    out.add("w/data/0", floats);
    out.commit();
    return StateFile::open(path_);
  }
  base::TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "w.pth";
};

TEST_F(StateFileUnderAKey, IsFoundAtTheUsualPlaces) {
  const std::string state = dict(text("w") + kTensor), epoch = text("epoch") + "K\x07";
  for (const std::string key : {"", "state_dict", "model_state_dict", "model"}) {
    const StateFile file = key.empty() ? open(state) : open(dict(epoch + text(key) + state));
    EXPECT_EQ(file.where(), path_.string() + (key.empty() ? "" : ": " + key));
    EXPECT_EQ(file.tensors().size(), 1u) << key;
    EXPECT_EQ(file.at("w").dtype, DType::kF32);
    EXPECT_EQ(file.at("w").shape, (std::vector<int64_t>{2, 3}));
    float values[6] = {};
    ASSERT_EQ(file.bytes("w"), sizeof values);
    file.read("w", values);
    EXPECT_THAT(values, testing::ElementsAre(0, 1, 2, 3, 4, 5)) << key;
    EXPECT_THAT([&] { file.bytes("v"); }, ThrowsMessage<UserError>(HasSubstr(": no key v among 1")));
  }
  // A network may have a part that is called model.
  EXPECT_EQ(open(dict(text("model") + kTensor)).tensors().count("model"), 1u);
}

TEST_F(StateFileUnderAKey, IsRefusedWhereItIsNotOneDictOfTensors) {
  const std::string state = dict(text("w") + kTensor);
  EXPECT_THAT([&] { open(dict(text("model") + state + text("state_dict") + state)); },
              ThrowsMessage<UserError>(HasSubstr("holds a dict under state_dict and one under model")));
  EXPECT_THAT([&] { open(dict(text("epoch") + "K\x07" + text("teacher") + state)); },
              ThrowsMessage<UserError>(HasSubstr("w.pth: key 'epoch' is an integer, expected a tensor under a name")));
  EXPECT_THAT([&] { open(dict(text("model") + dict(text("epoch") + "K\x07"))); },
              ThrowsMessage<UserError>(HasSubstr("w.pth: model: key 'epoch' is an integer")));
  EXPECT_THAT([&] { open(kTensor); }, ThrowsMessage<UserError>(HasSubstr("w.pth: holds a tensor, expected a dict")));
  EXPECT_THAT([&] { open("cos\nsystem\n" + text("touch evil") + "\x85R"); },
              ThrowsMessage<UserError>(HasSubstr("os.system")));
}

}  // namespace
}  // namespace varscale::archives
