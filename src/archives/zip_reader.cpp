#include <fmt/format.h>
#include <zip.h>

#include <algorithm>

#include "archives/printable.hpp"
#include "archives/zip_file.hpp"
#include "base/config.hpp"
#include "base/error.hpp"

namespace varscale::archives {

using base::UserError;

struct ZipFile::Open {
  zip_t* archive = nullptr;
  // The entry being read from, or none, and the place of its next byte.
  zip_file_t* file = nullptr;
  uint64_t index = 0, place = 0;

  void close() {
    if (file) zip_fclose(file);
    file = nullptr;
  }
  ~Open() {
    close();
    if (archive) zip_discard(archive);
  }
};

ZipFile::ZipFile(const std::filesystem::path& path, const ZipLimits& limits)
    : path_(path), open_(std::make_unique<Open>()) {
  const uint64_t file_bytes = base::MappedFile(path).size();  // its errors are those of a file that cannot be read
  int code = 0;
  open_->archive = zip_open(path.c_str(), ZIP_RDONLY, &code);
  if (!open_->archive) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string why = zip_error_strerror(&error);
    zip_error_fini(&error);
    throw UserError("{}: not a zip archive, or a damaged one ({})", path.string(), why);
  }
  const auto count = static_cast<uint64_t>(zip_get_num_entries(open_->archive, 0));
  if (count > limits.entries)
    throw UserError("{}: {} entries, at most {} are read", path.string(), count, limits.entries);
  uint64_t bytes = 0, stored = 0;
  for (uint64_t index = 0; index < count; ++index) {
    zip_stat_t stat;
    constexpr zip_uint64_t kNeeded = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD;
    if (zip_stat_index(open_->archive, index, ZIP_FL_ENC_RAW, &stat) != 0 || (stat.valid & kNeeded) != kNeeded)
      throw UserError("{}: entry {} of its directory cannot be read", path.string(), index);
    ZipEntry entry{.name = stat.name, .index = index, .bytes = stat.size, .stored = stat.comp_size};
    entry.deflated = stat.comp_method == ZIP_CM_DEFLATE;
    const auto refuse = [&](const std::string& why) {
      throw UserError("{}: entry '{}' {}", path.string(), printable(entry.name), why);
    };
    if (stat.comp_method != ZIP_CM_STORE && !entry.deflated)
      refuse(fmt::format("is packed by method {}; expected stored or deflated", stat.comp_method));
    if ((stat.valid & ZIP_STAT_ENCRYPTION_METHOD) && stat.encryption_method != ZIP_EM_NONE) refuse("is encrypted");
    if (!entry.deflated && entry.bytes != entry.stored)
      refuse(fmt::format("is stored, but its {} bytes take {}", entry.bytes, entry.stored));
    if (static_cast<double>(entry.bytes) > limits.ratio * (static_cast<double>(entry.stored) + 64))
      refuse(
          fmt::format("unpacks {} bytes to {}, more than {:g} times as many", entry.stored, entry.bytes, limits.ratio));
    bytes += entry.bytes;
    stored += entry.stored;
    if (entry.bytes > limits.bytes || bytes > limits.bytes)
      refuse(fmt::format("brings the unpacked size above {} bytes", limits.bytes));
    // Entries that share their bytes add up to more than there are.
    if (entry.stored > file_bytes || stored > file_bytes)
      refuse(fmt::format("takes more bytes than the {} of the file, which is truncated or has overlapping entries",
                         file_bytes));
    if (!by_name_.emplace(entry.name, entries_.size()).second) refuse("is listed twice");
    entries_.push_back(std::move(entry));
  }
}

ZipFile::~ZipFile() = default;

const ZipEntry* ZipFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

const ZipEntry& ZipFile::at(std::string_view name) const {
  if (const ZipEntry* entry = find(name)) return *entry;
  std::vector<std::string> names;
  for (const ZipEntry& entry : entries_) names.push_back(entry.name);
  throw UserError("{}: no entry '{}' among {}{}", path_.string(), printable(name), names.size(),
                  base::did_you_mean(name, names));
}

void ZipFile::read(const ZipEntry& entry, uint64_t offset, void* out, uint64_t count) const {
  VARSCALE_CHECK(offset <= entry.bytes && count <= entry.bytes - offset, "bytes {} to {} of entry {} of {} bytes",
                 offset, offset + count, entry.name, entry.bytes);
  const auto refuse = [&](const std::string& why) {
    open_->close();
    throw UserError("{}: entry '{}' {}", path_.string(), printable(entry.name), why);
  };
  const auto read_some = [&](void* to, uint64_t most) -> uint64_t {
    const zip_int64_t got = zip_fread(open_->file, to, most);
    if (got < 0) refuse(fmt::format("is damaged ({})", zip_file_strerror(open_->file)));
    open_->place += static_cast<uint64_t>(got);
    return static_cast<uint64_t>(got);
  };
  if (open_->file && (open_->index != entry.index || offset < open_->place)) open_->close();
  if (!open_->file) {
    open_->file = zip_fopen_index(open_->archive, entry.index, 0);
    if (!open_->file) refuse(fmt::format("cannot be read ({})", zip_strerror(open_->archive)));
    open_->index = entry.index;
    open_->place = 0;
  }
  if (offset > open_->place && !entry.deflated) {
    if (zip_fseek(open_->file, static_cast<zip_int64_t>(offset), SEEK_SET) != 0)
      refuse("is damaged: no such place in it");
    open_->place = offset;
  }
  constexpr uint64_t kPiece = 1 << 20;
  if (offset > open_->place) {
    std::vector<char> skipped(std::min(kPiece, offset - open_->place));
    while (open_->place < offset)
      if (read_some(skipped.data(), std::min<uint64_t>(skipped.size(), offset - open_->place)) == 0)
        refuse(fmt::format("ends after {} of its {} bytes", open_->place, entry.bytes));
  }
  auto* to = static_cast<char*>(out);
  for (uint64_t left = count; left > 0;) {
    const uint64_t got = read_some(to, std::min(left, kPiece));
    if (got == 0) refuse(fmt::format("ends after {} of its {} bytes", open_->place, entry.bytes));
    to += got;
    left -= got;
  }
  if (open_->place != entry.bytes) return;
  char more;  // the checksum is compared at the end of the data
  if (read_some(&more, 1) != 0) refuse(fmt::format("has more than its {} bytes", entry.bytes));
  open_->close();
}

std::string ZipFile::read_text(const ZipEntry& entry, uint64_t most) const {
  if (entry.bytes > most)
    throw UserError("{}: entry '{}' has {} bytes, at most {} are read", path_.string(), printable(entry.name),
                    entry.bytes, most);
  std::string text(entry.bytes, '\0');
  read(entry, 0, text.data(), text.size());
  return text;
}

}  // namespace varscale::archives
