#include "base/file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::base {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(AtomicFile, AppearsOnlyOnCommit) {
  const TemporaryFolder folder;
  const fs::path target = folder / "plan.json";
  AtomicFile file(target);
  file.write("one ");
  file.write("two", 3);
  EXPECT_FALSE(fs::exists(target));
  file.commit();
  EXPECT_EQ(read_file(target), "one two");
  EXPECT_EQ(folder.entries(), 1);
}

TEST(WriteFileOnce, LetsOneOfManyWritersMakeTheFile) {
  const TemporaryFolder folder;
  for (int round = 0; round < 20; ++round) {
    const fs::path target = folder / ("claim-" + std::to_string(round));
    std::atomic<int> made = 0, winner = -1;
    std::vector<std::thread> writers;
    for (int i = 0; i < 8; ++i)
      writers.emplace_back([&, i] {
        if (!write_file_once(target, std::to_string(i))) return;
        ++made;
        winner = i;
      });
    for (std::thread& writer : writers) writer.join();
    EXPECT_EQ(made, 1);
    EXPECT_EQ(read_file(target), std::to_string(winner));
    EXPECT_EQ(folder.entries(), round + 1);  // and nothing beside
  }
}

TEST(WriteFileOnce, SaysWhereItCannotWrite) {
  const TemporaryFolder folder;
  const auto write = [&] { write_file_once(folder / "none/claim-1", "x"); };
  EXPECT_THAT(message_of<UserError>(write), HasSubstr("none/claim-1"));
}

TEST(AtomicFile, LeavesTheOldFileAndNoTemporaryWhenDropped) {
  const TemporaryFolder folder;
  const fs::path target = folder.write("plan.json", "old");
  EXPECT_THROW(
      {
        AtomicFile file(target);
        file.write("new");
        throw std::runtime_error("half way");
      },
      std::runtime_error);
  EXPECT_EQ(read_file(target), "old");
  EXPECT_EQ(folder.entries(), 1);
}

TEST(AtomicFile, ReplacesAnOldFile) {
  const TemporaryFolder folder;
  const fs::path target = folder.write("plan.json", "a longer old text");
  write_file_atomic(target, "new");
  EXPECT_EQ(read_file(target), "new");
}

TEST(AtomicFile, CommitsWhatALibraryWroteAtItsTemporaryPath) {
  const TemporaryFolder folder;
  AtomicFile file(folder / "run.h5");
  fs::remove(file.temporary());
  std::ofstream(file.temporary()) << "by a library";
  file.commit();
  EXPECT_EQ(read_file(folder / "run.h5"), "by a library");
}

TEST(AtomicFile, RefusesAFolderThatIsNotThereByName) {
  const TemporaryFolder folder;
  const fs::path target = folder / "missing/plan.json";
  EXPECT_THAT(message_of<UserError>([&] { AtomicFile file(target); }),
              HasSubstr(target.string() + ": cannot be written: No such file or directory"));
}

TEST(AtomicFile, LeavesNothingWhenTheTargetIsAFolder) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "plan");
  EXPECT_THROW(write_file_atomic(folder / "plan", "text"), UserError);
  EXPECT_EQ(folder.entries(), 1);
}

TEST(AtomicFile, RefusesWritesAndCommitsAfterItsCommit) {
  const TemporaryFolder folder;
  AtomicFile file(folder / "a");
  file.commit();
  EXPECT_THROW(file.write("more"), InvariantError);
  EXPECT_THROW(file.commit(), InvariantError);
}

TEST(AtomicFolder, AppearsWholeOnCommit) {
  const TemporaryFolder folder;
  AtomicFolder step(folder / "step-1/");
  fs::create_directory(step.temporary() / "deep");
  std::ofstream(step.temporary() / "deep/rank-0") << "weights";
  EXPECT_FALSE(fs::exists(folder / "step-1"));
  step.commit();
  EXPECT_EQ(read_file(folder / "step-1/deep/rank-0"), "weights");
  EXPECT_EQ(folder.entries(), 1);
}

TEST(AtomicFolder, LeavesNothingWhenDropped) {
  const TemporaryFolder folder;
  {
    AtomicFolder step(folder / "step-1");
    std::ofstream(step.temporary() / "rank-0") << "weights";
    EXPECT_EQ(folder.entries(), 1);
  }
  EXPECT_EQ(folder.entries(), 0);
}

TEST(AtomicFolder, NeverReplacesATarget) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "step-1");  // empty: plain rename() would replace it
  {
    AtomicFolder step(folder / "step-1");
    EXPECT_THAT(message_of<UserError>([&] { step.commit(); }), HasSubstr("File exists"));
  }
  EXPECT_EQ(folder.entries(), 1);
}

TEST(ReadFile, ReadsBytesAsTheyAre) {
  const TemporaryFolder folder;
  std::string bytes(200'000, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7);
  EXPECT_EQ(read_file(folder.write("bytes", bytes)), bytes);
  EXPECT_FALSE(read_file("/proc/self/status").empty());  // says it has 0 bytes
}

TEST(ReadFile, NamesAMissingFileAndAFolder) {
  const TemporaryFolder folder;
  const std::string missing = (folder / "missing.yaml").string();
  EXPECT_EQ(message_of<UserError>([&] { read_file(missing); }),
            missing + ": cannot be read: No such file or directory");
  EXPECT_EQ(message_of<UserError>([&] { read_file(folder.path()); }),
            folder.path().string() + ": is a folder, expected a file");
}

TEST(MappedFile, ShowsTheBytesAndOutlivesItsName) {
  const TemporaryFolder folder;
  const fs::path path = folder.write("data", "some bytes");
  MappedFile first(path);
  fs::remove(path);
  const MappedFile file(std::move(first));
  ASSERT_EQ(file.size(), 10u);
  EXPECT_EQ(std::memcmp(file.data(), "some bytes", 10), 0);
  EXPECT_EQ(first.data(), nullptr);
}

TEST(MappedFile, MapsAnEmptyFileAndRefusesAMissingOne) {
  const TemporaryFolder folder;
  EXPECT_EQ(MappedFile(folder.write("empty", "")).size(), 0u);
  EXPECT_THROW(MappedFile(folder / "missing"), UserError);
  EXPECT_THROW(MappedFile(folder.path()), UserError);
}

TEST(WritableFolder, IsCreatedWithItsParentsAndLeftEmpty) {
  const TemporaryFolder folder;
  require_writable_folder(folder / "a/b/c");
  EXPECT_TRUE(fs::is_directory(folder / "a/b/c"));
  EXPECT_TRUE(fs::is_empty(folder / "a/b/c"));
}

TEST(WritableFolder, IsRefusedWhereNoFileCanBeWritten) {
  const TemporaryFolder folder;
  folder.write("file", "");
  EXPECT_THROW(require_writable_folder(folder / "file"), UserError);
  EXPECT_THROW(require_writable_folder(folder / "file/below"), UserError);
  EXPECT_THAT(message_of<UserError>([] { require_writable_folder("/proc/self"); }),
              HasSubstr("/proc/self: no file can be written in the folder"));
}

TEST(FsyncPath, NamesAMissingPath) {
  EXPECT_THAT(message_of<SystemError>([] { fsync_path("/nonexistent/x"); }),
              HasSubstr("/nonexistent/x"));
}

TEST(Sha256, GivesTheStandardsExamples) {
  // FIPS 180-4 examples and the empty text.
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjk"
                       "lmnopqklmnopqrlmnopqrsmnopqrstnopqrstu"),
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
}

TEST(Sha256, HashesAMillionLettersInUnevenParts) {
  const std::string million(1'000'000, 'a');
  Sha256 hash;
  for (size_t at = 0, part = 1; at < million.size(); at += part, part = part * 3 % 1009 + 1)
    hash.update(million.data() + at, std::min(part, million.size() - at));
  EXPECT_EQ(hash.hex(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, IsTheSameForEveryWayToSplitATextAroundABlock) {
  const std::string text(130, 'x');
  for (size_t length = 50; length <= text.size(); ++length) {
    Sha256 hash;
    hash.update(text.data(), 50);
    hash.update(text.data(), length - 50);
    ASSERT_EQ(hash.hex(), sha256_hex(text.substr(0, length))) << length;
  }
}

TEST(Sha256, ShortensToTheFirstBytes) {
  EXPECT_EQ(sha256_hex("abc", 4), "ba7816bf");
  EXPECT_THROW(sha256_hex("abc", 33), InvariantError);
}

}  // namespace
}  // namespace varscale::base
