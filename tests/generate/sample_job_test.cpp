#include "generate/sample_job.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/random.hpp"
#include "comm/thread_group.hpp"
#include "data/image_file.hpp"
#include "data/png.hpp"
#include "generate/outputs.hpp"
#include "tests/generate/small_pair.hpp"
#include "tests/support/python.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::generate {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int64_t kImageBytes = 16 * 16 * 3, kTokens = 85;

class Job : public testing::Test {
 protected:
  // Three classes of five images, of which three have the first slot: 15 images in 9 groups of two slots.
  SampleWork work(int64_t batch = 4) const {
    SampleWork work{.folder = folder_ / "a.part", .requests = {}, .group = 2, .side = 16, .tokens = kTokens,
                    .batch = batch, .settings = {{"seed", 3}, {"cfg", 1.5}}};
    for (const int64_t c : {2, 0, 1})
      for (int64_t j = 0; j < 5; ++j) work.requests.push_back({.image = 100 * c + j, .label = c});
    return work;
  }
  Sampler sampler() const { return pair_.sampler({.cfg = 1.5, .seed = 3, .group = 2}); }

  std::string all_pixels(const SampleJob& job) const {
    std::string bytes(15 * kImageBytes, '\0');
    for (int64_t i = 0; i < 15; ++i) job.read(i, reinterpret_cast<uint8_t*>(bytes.data()) + i * kImageBytes);
    return bytes;
  }
  at::Tensor all_tokens(const SampleJob& job) const {
    std::vector<uint16_t> tokens_BL(15 * kTokens);
    for (int64_t i = 0; i < 15; ++i) job.read_tokens(i, tokens_BL.data() + i * kTokens);
    return at::tensor(std::vector<int64_t>(tokens_BL.begin(), tokens_BL.end()), at::kLong).view({15, kTokens});
  }
  // What is drawn at so many ranks, or nothing where it was stopped.
  std::string draw(int ranks, int64_t batch, const std::function<bool()>& stop = {}) const {
    std::string pixels;
    comm::run_ranks(ranks, [&](comm::Communicator& world) {
      SampleJob job(work(batch), world);
      const bool complete = job.draw(sampler(), pair_.tokenizer, stop);
      if (complete && world.rank() == 0) pixels = all_pixels(job);
      world.barrier("pixels are read");
      if (complete) job.finish();
    });
    return pixels;
  }
  std::string wanted() const {
    const at::Tensor images =
        data::to_u8_BHWC(decode_each(pair_.tokenizer, sampler().sample(work().requests).f_hat_BEHW));
    return {reinterpret_cast<const char*>(images.const_data_ptr<uint8_t>()), static_cast<size_t>(images.numel())};
  }
  int groups_there() const {
    int count = 0;
    for (const auto& entry : fs::directory_iterator(folder_ / "a.part"))
      count += entry.path().filename().string().starts_with("group-");
    return count;
  }

  const SmallPair pair_;
  base::TemporaryFolder folder_;
};

TEST_F(Job, GivesTheSamePixelsAtAnyNumberOfRanksAndAnyBatch) {
  const std::string want = wanted();
  for (const auto& [ranks, batch] : std::vector<std::pair<int, int64_t>>{{1, 1}, {1, 100}, {2, 4}, {3, 3}, {12, 1}}) {
    EXPECT_TRUE(draw(ranks, batch) == want) << ranks << " ranks, batch " << batch;
    EXPECT_FALSE(fs::exists(folder_ / "a.part"));
  }
}

TEST_F(Job, GoesOnWhereItStoppedWithAnotherNumberOfRanks) {
  std::atomic<int> asked = 0;
  EXPECT_EQ(draw(3, 2, [&] { return ++asked > 4; }), "");
  const int first = groups_there();
  EXPECT_GE(first, 1);
  EXPECT_LT(first, 9);
  asked = 0;
  EXPECT_EQ(draw(1, 2, [&] { return ++asked > 2; }), "");
  EXPECT_EQ(groups_there(), first + 2);
  // A group that a crash has cut short is drawn again, one that is there is not looked into.
  const fs::path cut = folder_ / "a.part/group-0.u8", kept = folder_ / "a.part/group-6.u8";
  base::write_file_atomic(cut, std::string(5, 'x'));
  base::write_file_atomic(kept, std::string(kImageBytes + kTokens * sizeof(uint16_t), 'k'));
  std::string want = wanted();
  want.replace(0, kImageBytes, std::string(kImageBytes, 'k'));  // group 6 has image 0 of class 2, which comes first
  EXPECT_TRUE(draw(2, 4) == want);
}

TEST_F(Job, TellsWhatIsThere) {
  int asked = 0;
  draw(1, 2, [&] { return ++asked > 4; });
  const auto alone = comm::make_self();
  SampleJob job(work(), *alone);
  // The first four of nine groups have two images each.
  EXPECT_EQ(job.images_before(), 8);
  EXPECT_EQ(job.images_done(), 8);
  EXPECT_TRUE(job.draw(sampler(), pair_.tokenizer));
  EXPECT_EQ(job.images_before(), 8);
  EXPECT_EQ(job.images_done(), 15);
}

TEST_F(Job, RefusesToGoOnWithOtherSettingsOrBesideAnother) {
  draw(1, 2, [] { return true; });
  const auto alone = comm::make_self();
  const auto said = [&](const nlohmann::ordered_json& settings) {
    SampleWork other = work();
    other.settings = settings;
    return base::message_of<base::UserError>([&] { SampleJob(std::move(other), *alone); });
  };
  EXPECT_THAT(said({{"seed", 4}, {"cfg", 1.5}}),
              HasSubstr("a.part: holds images that were begun with seed 3, now 4; give the same model and options"));
  EXPECT_THAT(said({{"seed", 3}}), HasSubstr("begun with cfg 1.5, now none"));
  EXPECT_THAT(said({{"seed", 3}, {"cfg", 1.5}, {"top_k", 2}}), HasSubstr("begun with no top_k, now 2"));
  const SampleJob open(work(), *alone);
  EXPECT_THAT(said({{"seed", 3}, {"cfg", 1.5}}), HasSubstr("another launch is drawing there"));
}

TEST_F(Job, RefusesRanksThatSeeAnotherModel) {
  const auto errors = comm::try_ranks(2, [&](comm::Communicator& world) {
    SampleWork mine = work();
    mine.settings["step"] = world.rank();
    SampleJob(std::move(mine), world);
  });
  for (const auto& error : errors)
    EXPECT_THAT(base::message_of<base::UserError>([&] { std::rethrow_exception(error); }),
                HasSubstr("rank 1 draws something else than rank 0 (step 0, now 1)"));
  EXPECT_FALSE(fs::exists(folder_ / "a.part"));
}

TEST_F(Job, KeepsTheTokensBesideThePixels) {
  comm::run_ranks(2, [&](comm::Communicator& world) {
    SampleJob job(work(), world);
    ASSERT_TRUE(job.draw(sampler(), pair_.tokenizer));
    EXPECT_TRUE(at::equal(all_tokens(job), sampler().sample(work().requests).tokens_BL));
    world.barrier("tokens are read");
    job.finish();
  });
}

// Image i is filled with the number i.
ImageSupply numbered(int64_t count) {
  ImageSupply images{.side = 4, .labels = {}, .read = [](int64_t i, uint8_t* out) { std::fill_n(out, 48, i); }};
  for (int64_t i = 0; i < count; ++i) images.labels.push_back(100 + i / 10);
  return images;
}

TEST(WriteNpz, IsReadByNumpyInTheStatedOrder) {
  const base::TemporaryFolder folder;
  write_npz(folder / "a.npz", numbered(40), /*seed=*/5);
  const base::Permutation order(40, 5, "npz_order");
  std::string rows, labels;
  for (uint64_t row = 0; row < 40; ++row) {
    rows += fmt::format("{} ", order(row));
    labels += fmt::format("{} ", 100 + order(row) / 10);
  }
  EXPECT_EQ(test::run_python(R"(
import sys, numpy as np
file = np.load(sys.argv[1])
images, labels = file['arr_0'], file['arr_1']
assert images.dtype == np.uint8 and images.shape == (40, 4, 4, 3) and images.flags.c_contiguous
assert (images == images[:, :1, :1, :1]).all() and labels.dtype == np.int64
print(*images[:, 0, 0, 0], '')
print(*labels, '')
)",
                             folder / "a.npz"),
            rows + "\n" + labels + "\n");
  EXPECT_EQ(folder.entries(), 1);
}

TEST(WriteNpz, HasTheTokensOfTheRowsWhereTheyAreGiven) {
  const base::TemporaryFolder folder;
  ImageSupply images = numbered(40);
  write_npz(folder / "plain.npz", images, 5);
  images.tokens = 3;
  images.read_tokens = [](int64_t i, uint16_t* out_L) {
    for (int64_t k = 0; k < 3; ++k) out_L[k] = static_cast<uint16_t>(65535 - 3 * i - k);
  };
  write_npz(folder / "a.npz", images, 5);
  test::run_python(R"(
import sys, numpy as np
plain, file = (np.load(sys.argv[1] + name) for name in ('/plain.npz', '/a.npz'))
assert plain.files == ['arr_0', 'arr_1'] and file.files == ['arr_0', 'arr_1', 'arr_2']
assert all((plain[name] == file[name]).all() for name in plain.files)
number = file['arr_0'][:, 0, 0, :1].astype(int)
assert file['arr_2'].dtype == np.uint16 and (file['arr_2'] == 65535 - 3 * number - np.arange(3)).all()
)",
                   folder.path());
}

TEST(WriteNpz, IsAbsentWhereAnImageCannotBeRead) {
  const base::TemporaryFolder folder;
  ImageSupply images = numbered(40);
  images.read = [](int64_t, uint8_t*) { throw std::runtime_error("gone"); };
  EXPECT_THROW(write_npz(folder / "a.npz", images, 0), std::runtime_error);
  EXPECT_EQ(folder.entries(), 0);
}

TEST(WriteImageFolder, HasAPngAnImage) {
  const base::TemporaryFolder folder;
  write_image_folder(folder / "images", numbered(2), {"x", "y"});
  EXPECT_EQ(data::decode_rgb(folder / "images/y.png").pixels, std::vector<uint8_t>(48, 1));
  const std::string said =
      base::message_of<base::UserError>([&] { write_image_folder(folder / "images", numbered(2), {"x", "y"}); });
  EXPECT_THAT(said, HasSubstr("images: is there already"));
}

}  // namespace
}  // namespace varscale::generate
