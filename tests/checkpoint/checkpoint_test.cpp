// Saved by any number of ranks, loaded by any other; complete or absent.
#include "checkpoint/checkpoint.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "base/file.hpp"
#include "base/safetensors.hpp"
#include "checkpoint/saver.hpp"
#include "comm/thread_group.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/hash_weights.hpp"

namespace varscale::checkpoint {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const Identity kIdentity{"d2-s0-abcdef", "0123"};

const std::vector<std::pair<std::string, std::vector<int64_t>>> kShapes{
    {"param.head.weight", {7, 3}}, {"param.pos", {1, 5, 2}}, {"param.bias", {4}}, {"param.one", {1}}};

Tensor value(const std::string& name, const std::vector<int64_t>& shape, int64_t step) {
  return test::hash_v(fmt::format("{} {}", name, step), shape).to(at::kFloat);
}

void write_no_rows(const std::filesystem::path& file) { records::write_run(file, {}); }

// The rows that rank r of n has of every tensor; filled, or NaN to be loaded into.
std::vector<Piece> pieces_of(int rank, int size, int64_t step, bool filled) {
  std::vector<Piece> pieces;
  for (const auto& [name, shape] : kShapes) {
    const int64_t axis = name == "param.pos" ? 1 : 0, rows = shape[axis];
    const int64_t chunk = (rows + size - 1) / size;
    const int64_t begin = std::min(rows, rank * chunk), end = std::min(rows, begin + chunk);
    const Tensor part = value(name, shape, step).slice(axis, begin, end).contiguous();
    pieces.push_back(
        {name, shape, axis, begin, end, filled ? part : at::full_like(part, std::nanf(""))});
  }
  return pieces;
}

class Checkpoints : public testing::Test {
 protected:
  void save(int ranks, int64_t step) {
    comm::run_ranks(ranks, [&](comm::Communicator& world) {
      Saver saver(path(), /*keep=*/2, world);
      saver.save({.identity = kIdentity,
                  .step = step,
                  .segment = 3,
                  .pieces = pieces_of(world.rank(), ranks, step, true),
                  .write_rows = write_no_rows});
    });
  }
  void expect_loads(int ranks, int64_t step) {
    for (int rank = 0; rank < ranks; ++rank) {
      const auto got = pieces_of(rank, ranks, step, false);
      const Position position = folder().load(step, kIdentity, got);
      EXPECT_EQ(position.step, step);
      EXPECT_EQ(position.segment, 3);
      const auto want = pieces_of(rank, ranks, step, true);
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_TRUE(at::equal(got[i].tensor, want[i].tensor)) << got[i].name << " rank " << rank;
    }
  }
  std::filesystem::path path() const { return scratch_ / "checkpoints"; }
  CheckpointFolder folder() const { return {path(), 2}; }
  std::string refusal_of_load(int64_t step) const {
    try {
      folder().load(step, kIdentity, pieces_of(0, 1, step, false));
    } catch (const base::UserError& error) {
      return error.what();
    }
    return "";
  }

  base::TemporaryFolder scratch_;
};

TEST_F(Checkpoints, OfAnyNumberOfRanksLoadAtAnyOther) {
  int64_t step = 0;
  for (const int writers : {1, 2, 3, 4, 8}) {  // 8 ranks: some own no row of some tensors
    save(writers, ++step);
    for (const int readers : {1, 2, 3, 5}) expect_loads(readers, step);
  }
}

TEST_F(Checkpoints, KeepTheNewestAndRemoveWhatKillsHaveLeft) {
  std::filesystem::create_directories(path() / "step-000000001.tmp-9");
  base::write_file_atomic(path() / "step-000000001.tmp-9/manifest.json", "{}");
  for (const int64_t step : {10, 20, 30}) save(2, step);
  EXPECT_THAT(folder().steps(), ElementsAre(20, 30));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path()), {}), 2);
}

TEST_F(Checkpoints, OfChosenStepsAreKeptForEver) {
  comm::run_ranks(2, [&](comm::Communicator& world) {
    Saver saver(path(), Keep(1, {20, 40}), world);
    for (const int64_t step : {10, 20, 30, 40, 50, 60})
      saver.save({.identity = kIdentity,
                  .step = step,
                  .pieces = pieces_of(world.rank(), 2, step, true),
                  .write_rows = write_no_rows});
  });
  EXPECT_THAT(folder().steps(), ElementsAre(20, 40, 60));
}

TEST_F(Checkpoints, AreNotThereBeforeTheyArePublished) {
  comm::run_ranks(2, [&](comm::Communicator& world) {
    Saver saver(path(), 2, world);
    saver.begin({.identity = kIdentity,
                 .step = 5,
                 .pieces = pieces_of(world.rank(), 2, 5, true),
                 .write_rows = write_no_rows});
    while (saver.busy()) std::this_thread::yield();
    world.barrier("written");
    EXPECT_TRUE(folder().steps().empty());
    world.barrier("looked");
    saver.publish();
    EXPECT_THAT(folder().steps(), ElementsAre(5));
  });
}

TEST_F(Checkpoints, HoldTheStateAtTheirBeginningNotAtTheirEnd) {
  comm::run_ranks(2, [&](comm::Communicator& world) {
    Saver saver(path(), 2, world);
    auto pieces = pieces_of(world.rank(), 2, 5, true);
    saver.begin({.identity = kIdentity, .step = 5, .segment = 3, .pieces = pieces, .write_rows = write_no_rows});
    for (const Piece& piece : pieces) piece.tensor.fill_(-1);  // training goes on
    saver.publish();
  });
  expect_loads(1, 5);
}

TEST_F(Checkpoints, ThatWereNeverPublishedLeaveNothing) {
  comm::run_ranks(2, [&](comm::Communicator& world) {
    Saver saver(path(), 2, world);
    saver.begin({.identity = kIdentity,
                 .step = 5,
                 .pieces = pieces_of(world.rank(), 2, 5, true),
                 .write_rows = write_no_rows});
  });
  EXPECT_TRUE(folder().steps().empty());
  save(1, 6);  // which removes what a rank that was still writing may have left
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path()), {}), 1);
}

TEST_F(Checkpoints, OneRanksFailureIsEveryRanksAndLeavesNothing) {
  const auto thrown = comm::try_ranks(3, [&](comm::Communicator& world) {
    Saver saver(path(), 2, world);
    auto pieces = pieces_of(world.rank(), 3, 5, true);
    if (world.rank() == 1)
      pieces[0].tensor = pieces[0].tensor.to(at::kComplexFloat);  // has no place in such a file
    saver.save({.identity = kIdentity, .step = 5, .pieces = pieces, .write_rows = write_no_rows});
  });
  for (const auto& pointer : thrown) {
    ASSERT_NE(pointer, nullptr);
    EXPECT_THROW(std::rethrow_exception(pointer), std::runtime_error);
  }
  EXPECT_TRUE(folder().steps().empty());
  EXPECT_TRUE(std::filesystem::is_empty(path()));
}

TEST_F(Checkpoints, AreNotPublishedIfTheCallBeforeThrows) {
  const auto thrown = comm::try_ranks(3, [&](comm::Communicator& world) {
    Saver saver(path(), 2, world, [&] {
      EXPECT_EQ(world.rank(), 0);
      EXPECT_TRUE(folder().steps().empty());
      throw std::runtime_error("another job has the run");
    });
    saver.save({.identity = kIdentity, .step = 5, .pieces = pieces_of(world.rank(), 3, 5, true), .write_rows = write_no_rows});
  });
  for (const auto& pointer : thrown) {
    ASSERT_NE(pointer, nullptr);
    try {
      std::rethrow_exception(pointer);
    } catch (const std::exception& error) {
      EXPECT_THAT(error.what(), HasSubstr("another job has the run"));
    }
  }
  EXPECT_TRUE(std::filesystem::is_empty(path()));
}

TEST_F(Checkpoints, MakeNoFolderInPlaceOfOneThatWasTakenAway) {
  const auto away = scratch_ / "run/checkpoints";
  const auto thrown = comm::try_ranks(2, [&](comm::Communicator& world) {
    Saver saver(away, 2, world);
    saver.save({.identity = kIdentity, .step = 5, .pieces = pieces_of(world.rank(), 2, 5, true), .write_rows = write_no_rows});
  });
  for (const auto& pointer : thrown) EXPECT_NE(pointer, nullptr);
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "run"));
}

TEST_F(Checkpoints, RefuseAMissingATruncatedAndAChangedFile) {
  save(2, 1);
  const auto file = path() / "step-000000001/rank-00001.safetensors";
  const std::string good = base::read_file(file);
  base::write_file_atomic(file, good.substr(0, good.size() - 8));
  EXPECT_THAT(refusal_of_load(1), HasSubstr("bytes"));
  base::write_file_atomic(file, good.substr(0, good.size() - 1) + "\x7f");
  EXPECT_THAT(refusal_of_load(1), HasSubstr("checksum"));
  std::filesystem::remove(file);
  EXPECT_THAT(refusal_of_load(1), HasSubstr("missing"));
}

TEST_F(Checkpoints, RefuseRowsThatNobodyWrote) {
  save(2, 1);
  const auto manifest = path() / "step-000000001/manifest.json";
  auto json = nlohmann::json::parse(base::read_file(manifest));
  json["tensors"].erase(json["tensors"].size() - 1);
  base::write_file_atomic(manifest, json.dump());
  EXPECT_THAT(refusal_of_load(1), HasSubstr("rows of"));
}

TEST_F(Checkpoints, RefuseAnotherConfigurationAndAnotherShape) {
  save(1, 1);
  EXPECT_THROW(folder().load(1, {"other", "4567"}, {}), base::UserError);
  const std::vector<Piece> wrong{{"param.bias", {5}, 0, 0, 5, at::zeros({5})}};
  try {
    folder().load(1, kIdentity, wrong);
    ADD_FAILURE() << "accepted";
  } catch (const base::UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("shape [4], expected [5]"));
  }
}

}  // namespace
}  // namespace varscale::checkpoint
