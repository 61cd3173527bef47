#include "archives/zip_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::archives {
namespace {

using base::UserError;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::string noise(size_t bytes) {
  std::string text(bytes, '\0');
  uint32_t state = 7;
  for (char& c : text) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return text;
}

class Zip : public testing::Test {
 protected:
  base::TemporaryFolder folder_;
  std::filesystem::path path_ = folder_.path() / "a.zip";

  void write(ZipWriter::Zip64 zip64 = ZipWriter::Zip64::kWhereNeeded) {
    ZipWriter out(path_, zip64);
    out.add("stored", noise(3'000'000), {.align = 64});
    out.add("deflated", std::string(100'000, 'a') + noise(1000), {.deflate = true});
    out.add("empty", "");
    out.add("noise, deflated", noise(200'000), {.deflate = true, .align = 4096});
    out.commit();
  }
  // The file with some bytes changed.
  void damage(const std::string& find, const std::string& put, bool last = false) {
    std::string bytes = base::read_file(path_);
    const size_t at = last ? bytes.rfind(find) : bytes.find(find);
    ASSERT_NE(at, std::string::npos);
    bytes.replace(at, put.size(), put);
    base::write_file_atomic(path_, bytes);
  }
};

TEST_F(Zip, GivesBackWhatWasWrittenInBothForms) {
  for (const auto zip64 : {ZipWriter::Zip64::kWhereNeeded, ZipWriter::Zip64::kAlways}) {
    write(zip64);
    const ZipFile zip(path_);
    ASSERT_EQ(zip.entries().size(), 4u);
    EXPECT_EQ(zip.read_text(zip.at("stored"), 1 << 22), noise(3'000'000));
    EXPECT_EQ(zip.read_text(zip.at("deflated"), 1 << 20), std::string(100'000, 'a') + noise(1000));
    EXPECT_EQ(zip.read_text(zip.at("empty"), 0), "");
    EXPECT_EQ(zip.read_text(zip.at("noise, deflated"), 1 << 20), noise(200'000));
    EXPECT_LT(zip.at("deflated").stored, 5000u);
    EXPECT_TRUE(zip.at("deflated").deflated);
    EXPECT_EQ(zip.find("other"), nullptr);
  }
}

TEST_F(Zip, ReadsRangesInAnyOrder) {
  write();
  const ZipFile zip(path_);
  for (const char* name : {"stored", "deflated"}) {
    const ZipEntry& entry = zip.at(name);
    const std::string whole = zip.read_text(entry, entry.bytes);
    const std::vector<std::pair<uint64_t, uint64_t>> ranges = {
        {0, 10}, {10, 90}, {50'000, 51'000}, {7, 1}, {0, 0}, {entry.bytes - 5, 5}, {99'999, 2}, {entry.bytes, 0}};
    for (const auto& [offset, count] : ranges) {
      std::string part(count, '\0');
      zip.read(entry, offset, part.data(), count);
      EXPECT_EQ(part, whole.substr(offset, count)) << name << " " << offset;
    }
  }
}

TEST_F(Zip, PutsDataAtAMultipleOfTheAlignment) {
  write();
  const std::string bytes = base::read_file(path_);
  EXPECT_EQ(bytes.find(noise(3'000'000)) % 64, 0u);
  ZipWriter out(path_);
  for (int length = 1; length < 70; ++length)
    out.add(std::string(static_cast<size_t>(length), 'n'), "data" + std::to_string(1000 + length), {.align = 64});
  out.commit();
  const std::string many = base::read_file(path_);
  for (int length = 1; length < 70; ++length)
    EXPECT_EQ(many.find("data" + std::to_string(1000 + length)) % 64, 0u) << length;
}

TEST_F(Zip, IsTheSameFileForTheSameData) {
  write();
  const std::string first = base::read_file(path_);
  write();
  EXPECT_EQ(base::read_file(path_), first);
}

TEST_F(Zip, LeavesNothingWithoutCommit) {
  { ZipWriter(path_).add("a", "b"); }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(Zip, WritesMoreEntriesThanSixteenBitsCount) {
  constexpr int kEntries = 66'000;
  {
    ZipWriter out(path_);
    for (int i = 0; i < kEntries; ++i) out.add(std::to_string(i), i % 1000 == 0 ? "x" : "");
    out.commit();
  }
  const ZipFile zip(path_);
  ASSERT_EQ(zip.entries().size(), static_cast<size_t>(kEntries));
  EXPECT_EQ(zip.read_text(zip.at("65000"), 1), "x");
  EXPECT_THAT([&] { ZipFile(path_, {.entries = 65'999}); }, ThrowsMessage<UserError>(HasSubstr("66000 entries")));
}

TEST_F(Zip, NamesTheNearestEntry) {
  write();
  const ZipFile zip(path_);
  EXPECT_THAT([&] { zip.at("storde"); },
              ThrowsMessage<UserError>(HasSubstr("no entry 'storde' among 4; did you mean stored?")));
}

TEST_F(Zip, FindsDamageByItsChecksum) {
  write();
  damage(noise(40), "?");
  const ZipFile zip(path_);
  EXPECT_THAT([&] { zip.read_text(zip.at("stored"), 1 << 22); },
              ThrowsMessage<UserError>(HasSubstr("entry 'stored' is damaged")));
  EXPECT_EQ(zip.read_text(zip.at("empty"), 0), "");  // goes on with others
}

TEST_F(Zip, RefusesWhatIsNoArchive) {
  base::write_file_atomic(path_, "PK but nothing else");
  EXPECT_THAT([&] { ZipFile zip(path_); }, ThrowsMessage<UserError>(HasSubstr("not a zip archive")));
  base::write_file_atomic(path_, "");
  EXPECT_THROW(ZipFile zip(path_), UserError);
  EXPECT_THROW(ZipFile zip(folder_.path()), UserError);
  EXPECT_THROW(ZipFile zip(folder_.path() / "none"), UserError);
  write();
  const std::string bytes = base::read_file(path_);
  base::write_file_atomic(path_, bytes.substr(0, bytes.size() - 30));
  EXPECT_THROW(ZipFile zip(path_), UserError);
}

TEST_F(Zip, RefusesAnEntryListedTwice) {
  {
    ZipWriter out(path_);
    out.add("one", "1");
    out.add("two", "2");
    out.commit();
  }
  damage("two", "one");
  damage("two", "one", /*last=*/true);
  EXPECT_THAT([&] { ZipFile zip(path_); }, ThrowsMessage<UserError>(HasSubstr("entry 'one' is listed twice")));
}

TEST_F(Zip, RefusesBombs) {
  {
    ZipWriter out(path_);
    out.add("zeros", std::string(10'000'000, '\0'), {.deflate = true});
    out.commit();
  }
  EXPECT_EQ(ZipFile(path_).entries().size(), 1u);
  EXPECT_THAT([&] { ZipFile(path_, {.ratio = 100}); },
              ThrowsMessage<UserError>(HasSubstr("more than 100 times as many")));
  EXPECT_THAT([&] { ZipFile(path_, {.bytes = 9'999'999}); },
              ThrowsMessage<UserError>(HasSubstr("above 9999999 bytes")));
  const ZipFile zip(path_);
  EXPECT_THAT([&] { zip.read_text(zip.at("zeros"), 100); },
              ThrowsMessage<UserError>(HasSubstr("at most 100 are read")));
}

// Many names for one piece of data, as in archives that unpack to far more than their size.
TEST_F(Zip, RefusesEntriesThatShareTheirBytes) {
  {
    ZipWriter out(path_);
    out.add("a", noise(5000));
    out.add("b", noise(5000));
    out.add("c", "");
    out.commit();
  }
  std::string bytes = base::read_file(path_);
  const size_t second = bytes.find("PK\x03\x04", 10), directory = bytes.find("PK\x01\x02");
  const size_t third = bytes.find("PK\x03\x04", second + 5000);
  // The second local header and its data go; the directory's second and third lines point at the first.
  std::string cut = bytes.substr(0, second) + bytes.substr(third, directory - third);
  std::string lines = bytes.substr(directory);
  const size_t line_b = lines.find("PK\x01\x02", 4);
  std::memset(lines.data() + line_b + 42, 0, 4);
  lines[line_b + 46] = 'b';
  const auto begin = static_cast<uint32_t>(cut.size());
  std::memcpy(lines.data() + lines.rfind("PK\x05\x06") + 16, &begin, 4);
  base::write_file_atomic(path_, cut + lines);
  EXPECT_THROW(ZipFile zip(path_), UserError);
}

}  // namespace
}  // namespace varscale::archives
