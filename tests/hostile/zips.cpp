#include "tests/hostile/zips.hpp"

#include "archives/zip_file.hpp"
#include "base/file.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::hostile {

std::string zip_of(const std::vector<Entry>& entries) {
  const base::TemporaryFolder folder;
  archives::ZipWriter out(folder / "made.zip");
  for (const Entry& entry : entries) out.add(entry.name, entry.bytes, {.deflate = entry.deflate});
  out.commit();
  return base::read_file(folder / "made.zip");
}

std::vector<Entry> entries_of(const std::string& zip) {
  const base::TemporaryFolder folder;
  const archives::ZipFile file(folder.write("read.zip", zip));
  std::vector<Entry> entries;
  for (const archives::ZipEntry& entry : file.entries())
    entries.push_back({entry.name, file.read_text(entry, 1 << 24), entry.deflated});
  return entries;
}

namespace {

// Of a line of the central directory: place and bytes.
struct Field {
  size_t at, bytes;
};
constexpr Field kFlags{8, 2}, kMethod{10, 2}, kSum{16, 4}, kStored{20, 4}, kUnpacked{24, 4}, kNameLength{28, 2},
    kExtraLength{30, 2}, kCommentLength{32, 2}, kDisk{34, 2}, kHeader{42, 4};
// Of the record of the directory's end.
constexpr Field kEndFields[] = {{4, 2}, {6, 2}, {8, 2}, {10, 2}, {12, 4}, {16, 4}, {20, 2}};

std::vector<size_t> lines_of(const std::string& zip) {
  const size_t end = zip.rfind("PK\x05\x06");
  std::vector<size_t> lines;
  for (size_t at = number_at(zip, end + 16, 4); at + 46 <= end && zip.compare(at, 4, "PK\x01\x02") == 0;
       at += 46 + number_at(zip, at + 28, 2) + number_at(zip, at + 30, 2) + number_at(zip, at + 32, 2))
    lines.push_back(at);
  return lines;
}

}  // namespace

std::string lie_in_directory(const std::string& zip, Chance& chance) {
  std::string text = zip;
  const std::vector<size_t> lines = lines_of(zip);
  for (uint64_t i = 0, count = 1 + chance.below(2); i < count; ++i) {
    const bool in_end = chance.below(4) == 0;
    constexpr Field kFields[] = {kFlags,       kMethod,        kSum,  kStored, kUnpacked, kNameLength,
                                 kExtraLength, kCommentLength, kDisk, kHeader};
    const Field field = in_end ? chance.of(kEndFields) : chance.of(kFields);
    const size_t at = (in_end ? zip.rfind("PK\x05\x06") : chance.of(lines)) + field.at;
    put_number(text, at, edge(chance, number_at(text, at, field.bytes)), field.bytes);
  }
  return text;
}

std::string share_entries(const std::string& zip, Chance& chance) {
  std::string text = zip;
  const std::vector<size_t> lines = lines_of(zip);
  const size_t from = chance.of(lines);
  for (const size_t to : lines) {
    if (to == from || chance.below(2) == 0) continue;
    for (const Field field : {kMethod, kSum, kStored, kUnpacked, kHeader})
      put_number(text, to + field.at, number_at(zip, from + field.at, field.bytes), field.bytes);
  }
  return text;
}

std::string claim_size(const std::string& zip, Chance& chance) {
  std::string text = zip;
  constexpr uint64_t kSizes[] = {100'000'000, 0x7fffffff, 0xfffffff0};
  const size_t line = chance.of(lines_of(zip));
  const uint64_t size = chance.of(kSizes), header = number_at(zip, line + kHeader.at, 4);
  for (const size_t at : {line + kUnpacked.at, header + 22}) put_number(text, at, size, 4);
  if (chance.below(2) == 0)
    for (const size_t at : {line + kMethod.at, header + 8}) put_number(text, at, /*deflated=*/8, 2);
  else
    for (const size_t at : {line + kStored.at, header + 18}) put_number(text, at, size, 4);
  return text;
}

}  // namespace varscale::hostile
