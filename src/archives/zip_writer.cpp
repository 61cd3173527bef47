#include <zlib.h>

#include <array>
#include <limits>

#include "archives/zip_file.hpp"
#include "base/error.hpp"

namespace varscale::archives {
namespace {

constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50, kEnd64Place = 0x07064b50;
constexpr uint16_t kVersion = 45;  // the first with 64-bit records
constexpr uint16_t kUtf8 = 0x0800;
constexpr uint16_t kExtra64 = 0x0001, kPadding = 0x4246;  // "FB", as torch pads
constexpr uint16_t kFirstOf1980 = 33;                     // a date: the same data give the same file
constexpr uint64_t kMost32 = std::numeric_limits<uint32_t>::max(), kMost16 = std::numeric_limits<uint16_t>::max();

// Little-endian numbers, one behind the other.
class Record {
 public:
  template <class T>
  Record& put(T value) {
    for (size_t i = 0; i < sizeof value; ++i) bytes_ += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i));
    return *this;
  }
  Record& put(const std::string& text) {
    bytes_ += text;
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

uint16_t method(bool deflate) { return deflate ? Z_DEFLATED : 0; }

constexpr size_t kLocalBytes = 30, kCrcPlace = 14, kExtra64Bytes = 20;

}  // namespace

struct ZipWriter::Deflate {
  z_stream stream{};
  std::array<char, 1 << 16> out;

  Deflate() {
    // Raw, without zlib's own head.
    VARSCALE_CHECK(deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK,
                   "zlib cannot begin");
  }
  ~Deflate() { deflateEnd(&stream); }
  Deflate(const Deflate&) = delete;
  Deflate& operator=(const Deflate&) = delete;
};

ZipWriter::ZipWriter(const std::filesystem::path& target, Zip64 zip64) : file_(target), zip64_(zip64) {}
ZipWriter::~ZipWriter() = default;

void ZipWriter::put(std::string_view bytes) {
  file_.write(bytes);
  at_ += bytes.size();
}

void ZipWriter::begin(std::string name, const ZipWriteOptions& options) {
  VARSCALE_CHECK(!in_entry_, "entry {} begins before {} has ended", name, written_.back().name);
  VARSCALE_CHECK(!name.empty() && name.size() < kMost16 / 2, "an entry's name of {} bytes", name.size());
  VARSCALE_CHECK(options.align >= 1 && options.align <= 4096, "entry {} aligned to {}", name, options.align);
  // Sizes and checksum are put in by end(); the 64-bit record is there in any case, since they are not known yet.
  Record extra;
  extra.put(kExtra64).put(uint16_t{16}).put(uint64_t{0}).put(uint64_t{0});
  const uint64_t unpadded = at_ + kLocalBytes + name.size() + kExtra64Bytes;
  if (const uint64_t over = unpadded % options.align; over != 0) {
    uint64_t padding = options.align - over;
    while (padding < 4) padding += options.align;  // its own head
    extra.put(kPadding).put(static_cast<uint16_t>(padding - 4)).put(std::string(padding - 4, '\0'));
  }
  Record local;
  local.put(kLocal).put(kVersion).put(kUtf8).put(method(options.deflate));
  local.put(uint16_t{0})
      .put(kFirstOf1980)
      .put(uint32_t{0})
      .put(static_cast<uint32_t>(kMost32))
      .put(static_cast<uint32_t>(kMost32));
  local.put(static_cast<uint16_t>(name.size())).put(static_cast<uint16_t>(extra.bytes().size()));
  local.put(name).put(extra.bytes());
  written_.push_back({.name = std::move(name), .header = at_, .deflated = options.deflate});
  written_.back().crc = static_cast<uint32_t>(crc32(0, nullptr, 0));
  put(local.bytes());
  in_entry_ = true;
  if (options.deflate) deflate_ = std::make_unique<Deflate>();
}

void ZipWriter::write(const void* bytes, size_t count) {
  VARSCALE_CHECK(in_entry_, "bytes outside an entry");
  Written& entry = written_.back();
  constexpr size_t kPiece = 1 << 30;  // zlib counts in 32 bits
  const auto* at = static_cast<const unsigned char*>(bytes);
  for (size_t left = count; left > 0;) {
    const size_t piece = std::min(left, kPiece);
    entry.crc = static_cast<uint32_t>(crc32(entry.crc, at, static_cast<uInt>(piece)));
    entry.bytes += piece;
    if (deflate_) {
      z_stream& stream = deflate_->stream;
      stream.next_in = const_cast<unsigned char*>(at);
      stream.avail_in = static_cast<uInt>(piece);
      while (stream.avail_in > 0) {
        stream.next_out = reinterpret_cast<unsigned char*>(deflate_->out.data());
        stream.avail_out = static_cast<uInt>(deflate_->out.size());
        VARSCALE_CHECK(deflate(&stream, Z_NO_FLUSH) == Z_OK, "zlib failed in {}", entry.name);
        put({deflate_->out.data(), deflate_->out.size() - stream.avail_out});
        entry.stored += deflate_->out.size() - stream.avail_out;
      }
    } else {
      put({reinterpret_cast<const char*>(at), piece});
      entry.stored += piece;
    }
    at += piece;
    left -= piece;
  }
}

void ZipWriter::end() {
  VARSCALE_CHECK(in_entry_, "no entry to end");
  Written& entry = written_.back();
  if (deflate_) {
    int state = Z_OK;
    while (state == Z_OK) {
      z_stream& stream = deflate_->stream;
      stream.next_out = reinterpret_cast<unsigned char*>(deflate_->out.data());
      stream.avail_out = static_cast<uInt>(deflate_->out.size());
      state = deflate(&stream, Z_FINISH);
      put({deflate_->out.data(), deflate_->out.size() - stream.avail_out});
      entry.stored += deflate_->out.size() - stream.avail_out;
    }
    VARSCALE_CHECK(state == Z_STREAM_END, "zlib failed at the end of {}", entry.name);
    deflate_.reset();
  }
  const std::string crc = Record().put(entry.crc).bytes();
  const std::string sizes = Record().put(entry.bytes).put(entry.stored).bytes();
  file_.write_at(entry.header + kCrcPlace, crc);
  file_.write_at(entry.header + kLocalBytes + entry.name.size() + 4, sizes);
  in_entry_ = false;
}

void ZipWriter::add(std::string name, std::string_view bytes, const ZipWriteOptions& options) {
  begin(std::move(name), options);
  write(bytes.data(), bytes.size());
  end();
}

void ZipWriter::commit() {
  VARSCALE_CHECK(!in_entry_, "committed within entry {}", written_.back().name);
  const bool always = zip64_ == Zip64::kAlways;
  const uint64_t begin = at_;
  for (const Written& entry : written_) {
    // The 64-bit record holds what does not fit, in this order.
    Record wide;
    const auto narrow = [&](uint64_t value) {
      if (!always && value < kMost32) return static_cast<uint32_t>(value);
      wide.put(value);
      return static_cast<uint32_t>(kMost32);
    };
    const uint32_t bytes = narrow(entry.bytes), stored = narrow(entry.stored), header = narrow(entry.header);
    Record extra;
    if (!wide.bytes().empty()) extra.put(kExtra64).put(static_cast<uint16_t>(wide.bytes().size())).put(wide.bytes());
    Record record;
    record.put(kCentral).put(kVersion).put(kVersion).put(kUtf8).put(method(entry.deflated));
    record.put(uint16_t{0}).put(kFirstOf1980).put(entry.crc).put(stored).put(bytes);
    record.put(static_cast<uint16_t>(entry.name.size())).put(static_cast<uint16_t>(extra.bytes().size()));
    record.put(uint16_t{0}).put(uint16_t{0}).put(uint16_t{0}).put(uint32_t{0}).put(header);
    put(record.put(entry.name).put(extra.bytes()).bytes());
  }
  const uint64_t count = written_.size(), bytes = at_ - begin, end64 = at_;
  Record end;
  if (always || count >= kMost16 || begin >= kMost32 || bytes >= kMost32) {
    end.put(kEnd64).put(uint64_t{44}).put(kVersion).put(kVersion).put(uint32_t{0}).put(uint32_t{0});
    end.put(count).put(count).put(bytes).put(begin);
    end.put(kEnd64Place).put(uint32_t{0}).put(end64).put(uint32_t{1});
  }
  const auto short_count = static_cast<uint16_t>(always ? kMost16 : std::min(count, kMost16));
  end.put(kEnd).put(uint16_t{0}).put(uint16_t{0}).put(short_count).put(short_count);
  end.put(static_cast<uint32_t>(always ? kMost32 : std::min(bytes, kMost32)));
  end.put(static_cast<uint32_t>(always ? kMost32 : std::min(begin, kMost32))).put(uint16_t{0});
  put(end.bytes());
  file_.commit();
}

}  // namespace varscale::archives
