#include "data/batch.hpp"

#include <algorithm>
#include <numeric>
#include <set>

#include "support.hpp"

namespace varscale::data {
namespace {

// Row r holds the token r everywhere, so a batch shows which rows it took.
records::TokenFile file_of_rows(const TemporaryFolder& folder, int64_t train, int64_t validation,
                                int64_t crops) {
  return records::TokenFile(write_tokens(
      folder / "tokens.h5", train, validation, crops,
      [](int64_t r, int64_t) { return static_cast<uint16_t>(r); },
      [](int64_t r) { return static_cast<int32_t>(r % 10); }));
}

std::vector<int64_t> rows_of(const Batch& batch) {
  const at::Tensor first_B = batch.tokens_BL.select(1, 0).contiguous();
  const auto* data = first_B.const_data_ptr<int64_t>();
  return {data, data + first_B.numel()};
}

TEST(TrainBatches, AnEpochVisitsEveryImageOnceAndTheNextInAnotherOrder) {
  const TemporaryFolder folder;
  const auto file = file_of_rows(folder, 24, 1, 1);
  CachedBatches batches(file, 7, 8);
  std::vector<std::vector<int64_t>> epochs(2);
  for (int64_t step = 0; step < 6; ++step) {
    const auto rows = rows_of(batches.load(step, 0, 8));
    auto& epoch = epochs[step / 3];
    epoch.insert(epoch.end(), rows.begin(), rows.end());
  }
  EXPECT_NE(epochs[0], epochs[1]);
  std::vector<int64_t> all(24);
  std::iota(all.begin(), all.end(), 0);
  for (auto& epoch : epochs) {
    std::sort(epoch.begin(), epoch.end());
    EXPECT_EQ(epoch, all);
  }
}

TEST(TrainBatches, RowsDoNotDependOnHowABatchIsDividedAmongRanks) {
  const TemporaryFolder folder;
  const auto file = file_of_rows(folder, 10, 1, 3);  // batches of 7 cross epochs inside a batch
  CachedBatches batches(file, 7, 7);
  for (int64_t step = 0; step < 5; ++step) {
    const Batch whole = batches.load(step, 0, 7);
    const Batch parts[] = {batches.load(step, 0, 3), batches.load(step, 3, 3),
                           batches.load(step, 3, 7)};
    EXPECT_TRUE(at::equal(whole.tokens_BL,
                          at::cat({parts[0].tokens_BL, parts[1].tokens_BL, parts[2].tokens_BL})));
    EXPECT_TRUE(at::equal(whole.labels_B,
                          at::cat({parts[0].labels_B, parts[1].labels_B, parts[2].labels_B})));
    for (int64_t i = 0; i < 7; ++i) EXPECT_EQ(whole.sample_ids[i], step * 7 + i);
  }
}

TEST(TrainBatches, SamplesDoNotDependOnTheBatchSize) {
  const TemporaryFolder folder;
  const auto file = file_of_rows(folder, 10, 1, 2);
  CachedBatches four(file, 7, 4), twelve(file, 7, 12);
  std::vector<int64_t> in_fours;
  for (int64_t step = 0; step < 3; ++step) {
    const auto rows = rows_of(four.load(step, 0, 4));
    in_fours.insert(in_fours.end(), rows.begin(), rows.end());
  }
  EXPECT_EQ(in_fours, rows_of(twelve.load(0, 0, 12)));
}

TEST(TrainBatches, AnImageShowsAllItsCropsBeforeOneComesAgain) {
  const TemporaryFolder folder;
  const auto file = file_of_rows(folder, 6, 1, 4);
  CachedBatches batches(file, 7, 6);
  std::vector<std::set<int64_t>> crops_of(6);
  std::set<int64_t> in_first_epoch;
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    for (const int64_t row : rows_of(batches.load(epoch, 0, 6))) {
      crops_of[row / 4].insert(row % 4);
      if (epoch == 0) in_first_epoch.insert(row % 4);
    }
  }
  for (const auto& crops : crops_of) EXPECT_EQ(crops.size(), 4u);
  EXPECT_GT(in_first_epoch.size(), 1u);  // not the same crop number for all images
}

TEST(TrainBatches, SampleNamesTheRowThatLoadTakes) {
  const TemporaryFolder folder;
  const auto file = file_of_rows(folder, 10, 1, 3);
  CachedBatches batches(file, 3, 4);
  const Batch batch = batches.load(6, 0, 4);
  const auto rows = rows_of(batch);
  for (int64_t i = 0; i < 4; ++i) {
    const TrainSample sample = batches.sample(batch.sample_ids[i]);
    EXPECT_EQ(sample.epoch, batch.sample_ids[i] / 10);
    EXPECT_EQ(file.train_row(sample.image, sample.crop), rows[i]);
    EXPECT_EQ(batch.labels_B[i].item<int64_t>(), rows[i] % 10);
  }
}

TEST(TrainBatches, AnotherSeedGivesAnotherOrder) {
  const TemporaryFolder folder;
  const auto file = file_of_rows(folder, 24, 1, 1);
  EXPECT_NE(rows_of(CachedBatches(file, 0, 24).load(0, 0, 24)),
            rows_of(CachedBatches(file, 1, 24).load(0, 0, 24)));
}

TEST(ValidationBatches, KeepTheOrderOfTheFile) {
  const TemporaryFolder folder;
  const auto file = file_of_rows(folder, 3, 5, 2);  // validation rows are 6 to 10
  const ValidationBatches batches(file);
  const Batch batch = batches.load(1, 4);
  EXPECT_EQ(rows_of(batch), (std::vector<int64_t>{7, 8, 9}));
  EXPECT_EQ(batch.sample_ids, (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(batch.labels_B[0].item<int64_t>(), 7);
}

}  // namespace
}  // namespace varscale::data
