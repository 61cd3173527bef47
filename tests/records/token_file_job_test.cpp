#include "records/token_file_job.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "base/error.hpp"
#include "base/file.hpp"
#include "support.hpp"

namespace varscale::records {
namespace {

using base::UserError;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

// 12 rows of 5 tokens in five blocks.
TokenFileInfo job_info() {
  TokenFileInfo info;
  info.train_images = 10, info.validation_images = 2, info.classes = 3;
  info.vocabulary = 9;
  info.scales = {1, 2};
  info.image_side = 8;
  info.tokenizer_fingerprint = "ab";
  info.preprocessing = "none";
  info.source_fingerprint = "cd";
  return info;
}

QuantizerWeights job_quantizer() {
  QuantizerWeights weights;
  weights.vocabulary = 9, weights.code_width = 1;
  weights.embedding.assign(9, 0.5f);
  return weights;
}

const std::vector<int64_t> kBegins = {0, 3, 6, 9, 10, 12};

uint16_t job_token(int64_t row, int64_t l) { return static_cast<uint16_t>((row * row + l) % 9); }

void write_block(TokenFileJob& job, int64_t block) {
  std::vector<uint16_t> tokens;
  std::vector<int32_t> labels;
  std::vector<int64_t> sources;
  for (int64_t row = job.rows(block)[0]; row < job.rows(block)[1]; ++row) {
    for (int64_t l = 0; l < 5; ++l) tokens.push_back(job_token(row, l));
    labels.push_back(static_cast<int32_t>(row % 3));
    sources.push_back(50 + row);
  }
  job.write(block, tokens, labels, sources);
}

class TokenJob : public testing::Test {
 protected:
  TokenFileJob begin(const std::string& settings = "batch 3\n") const {
    return TokenFileJob::begin(out, job_info(), job_quantizer(), {kBegins, settings});
  }
  std::filesystem::path part(const std::string& name) const { return folder / ("t.h5.part/" + name); }
  // The bytes of the same rows from the writer of one process.
  std::string expected() const {
    const auto path = folder / "plain.h5";
    TokenFileWriter writer(path, job_info(), job_quantizer());
    for (int64_t row = 0; row < 12; ++row) {
      std::vector<uint16_t> tokens;
      for (int64_t l = 0; l < 5; ++l) tokens.push_back(job_token(row, l));
      writer.write_row(row, tokens.data(), static_cast<int32_t>(row % 3), 50 + row);
    }
    writer.commit();
    return base::read_file(path);
  }
  void finish() const {
    TokenFileJob job = begin();
    for (const int64_t block : job.left()) write_block(job, block);
    job.commit();
    EXPECT_EQ(base::read_file(out), expected());
    EXPECT_FALSE(std::filesystem::exists(part("")));
    TokenFile(out).verify();
  }
  TemporaryFolder folder;
  std::filesystem::path out = folder / "t.h5";
};

TEST_F(TokenJob, OfTwoProcessesHasTheBytesOfOne) {
  TokenFileJob first = begin();
  TokenFileJob second = TokenFileJob::join(out, 1, first.words());
  EXPECT_THAT(second.left(), ElementsAre(0, 1, 2, 3, 4));
  for (const int64_t block : {4, 0, 2}) write_block(second, block);
  EXPECT_EQ(first.rows_done(), 2 + 3 + 3);
  EXPECT_THAT([&] { first.commit(); },
              ThrowsMessage<std::runtime_error>(HasSubstr("rows 3 to 5 are not what was written")));
  for (const int64_t block : {1, 3}) write_block(first, block);
  EXPECT_EQ(second.rows_done(), 12);
  EXPECT_FALSE(std::filesystem::exists(out));
  first.commit();
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // HDF5 would write the second into the file
  EXPECT_EQ(base::read_file(out), expected());
  EXPECT_EQ(folder.entries(), 2);
}

TEST_F(TokenJob, GoesOnAfterAnyLoss) {
  {
    TokenFileJob job = begin();
    for (const int64_t block : {0, 1, 3, 4}) write_block(job, block);
  }
  {
    TokenFileJob job = begin();
    EXPECT_THAT(job.left(), ElementsAre(2));
    EXPECT_EQ(job.rows_done(), 9);
  }
  // Rows that never reached the disk, and a line that was cut.
  const auto damage = [&](const std::string& name, int64_t at, const std::string& bytes) {
    std::fstream file(part(name), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(at);
    file << bytes;
  };
  const std::string tokens = base::read_file(part("tokens.h5"));
  const auto row = [](int64_t r) {
    std::string text;
    for (int64_t l = 0; l < 5; ++l) text += std::string({static_cast<char>(job_token(r, l)), '\0'});
    return text;
  };
  const auto at = static_cast<int64_t>(tokens.find(row(3) + row(4) + row(5)));
  ASSERT_NE(at, -1);
  damage("tokens.h5", at, std::string(30, '\0'));
  EXPECT_THAT(begin().left(), ElementsAre(1, 2));
  std::filesystem::resize_file(part("done-1-0"), std::filesystem::file_size(part("done-1-0")) - 5);
  EXPECT_THAT(begin().left(), ElementsAre(1, 2, 4));
  damage("done-1-0", 3, "zz");
  EXPECT_THAT(begin().left(), ElementsAre(0, 1, 2, 4));
  finish();
}

TEST_F(TokenJob, BeginsAnewWhereTheFolderIsIncomplete) {
  const auto half_made = [&](const std::function<void()>& harm) {
    {
      TokenFileJob job = begin();
      write_block(job, 2);
    }
    harm();
    EXPECT_THAT(begin().left(), ElementsAre(0, 1, 2, 3, 4));
    finish();
    std::filesystem::remove(out);
    std::filesystem::remove(folder / "plain.h5");
  };
  half_made([&] { std::filesystem::remove(part("job.txt")); });
  half_made([&] { std::filesystem::remove(part("tokens.h5")); });
  half_made([&] { std::filesystem::resize_file(part("tokens.h5"), 100); });
  half_made([&] { folder.write("t.h5.part/job.txt", "noise"); });
}

TEST_F(TokenJob, RefusesOtherWorkASecondLaunchAndABadPlace) {
  {
    TokenFileJob job = begin();
    EXPECT_THAT([&] { begin(); }, ThrowsMessage<UserError>(HasSubstr("t.h5: another launch is writing it")));
    EXPECT_FALSE(job.asked_to_stop());
    TokenFileJob::join(out, 1, job.words()).ask_to_stop();
    EXPECT_TRUE(job.asked_to_stop());
  }
  EXPECT_FALSE(begin().asked_to_stop());  // that was said to another launch
  EXPECT_THAT([&] { begin("batch 4\n"); },
              ThrowsMessage<UserError>(HasSubstr("t.h5.part: holds work that was begun with \"batch 3\", now \"batch 4\"")));
  EXPECT_THAT([&] { begin("batch 3\nmore 1\n"); },
              ThrowsMessage<UserError>(HasSubstr("\"nothing more\", now \"more 1\"")));
  EXPECT_THAT([&] { TokenFileJob::begin(folder / "no/t.h5", job_info(), job_quantizer(), {kBegins, ""}); },
              ThrowsMessage<UserError>(HasSubstr("no/t.h5: cannot be written: No such file")));
  EXPECT_EQ(folder.entries(), 1);
  TokenFileJob job = begin();
  EXPECT_THAT([&] { job.write(3, {1, 2, 3, 4, 5}, {3}, {0}); },
              ThrowsMessage<UserError>(HasSubstr("t.h5: row 9 (image 0) has label 3; expected 0 to 2")));
  job.discard();
  EXPECT_EQ(folder.entries(), 0);
}

}  // namespace
}  // namespace varscale::records
