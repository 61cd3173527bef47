#include "records/event_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <initializer_list>
#include <limits>
#include <utility>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/machine.hpp"

namespace varscale::records {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = "events.out.tfevents.";

// Of the 256 bytes that a step may find in the register's low end.
constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value & 1 ? value >> 1 ^ 0x82f63b78u : value >> 1;
    table[i] = value;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kCrcTable = make_crc_table();

template <class T>
std::string little_endian(T value) {
  static_assert(std::endian::native == std::endian::little);
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// --- protobuf: a field is (number << 3 | wire type), then its value ---------------------------------

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes += static_cast<char>(value);
}

std::string bytes_field(char key, std::string_view bytes) {
  return key + varint(bytes.size()) + std::string(bytes);
}

struct Scalar {
  const char* tag;
  double value;
};

// Event {1: wall_time f64, 2: step, 3: file_version, 5: Summary {1: Value {1: tag, 2: simple_value f32}}}
std::string event(double wall_time) { return "\x09" + little_endian(wall_time); }

std::string event(double wall_time, int64_t step, std::initializer_list<Scalar> scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars)
    summary += bytes_field('\x0a', bytes_field('\x0a', scalar.tag) + "\x15" +
                                       little_endian(static_cast<float>(scalar.value)));
  return event(wall_time) + "\x10" + varint(static_cast<uint64_t>(step)) + bytes_field('\x2a', summary);
}

std::string event_of(const StepRow& row, double wall_time) {
  const double images_per_s = row.images / static_cast<double>(row.step) / row.step_s;
  return event(wall_time, row.step,
               {{"train/loss_mean", row.loss_mean}, {"train/loss_tail", row.loss_tail},
                {"train/err_mean", row.err_mean}, {"train/lr", row.lr},
                {"train/grad_norm", row.grad_norm}, {"rates/images_per_s", images_per_s}});
}

std::string event_of(const EvalRow& row, double wall_time) {
  return event(wall_time, row.step,
               {{"eval/loss_mean", row.loss_mean}, {"eval/loss_tail", row.loss_tail},
                {"eval/err_mean", row.err_mean}});
}

std::string record(const std::string& data) {
  const std::string length = little_endian(static_cast<uint64_t>(data.size()));
  return length + little_endian(masked_crc32c(length)) + data + little_endian(masked_crc32c(data));
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// The rows in the order of their steps; an evaluation comes after its step.
std::string records_of(const RunTables& tables) {
  double wall_time = now();
  for (const StepRow& row : tables.steps) wall_time -= row.step_s;
  std::string text = record(event(wall_time) + bytes_field('\x1a', "brain.Event:2"));
  auto eval = tables.eval.begin();
  const auto add_evaluations = [&](int64_t before) {
    for (; eval != tables.eval.end() && eval->step < before; ++eval)
      text += record(event_of(*eval, wall_time));
  };
  for (const StepRow& row : tables.steps) {
    add_evaluations(row.step);
    wall_time += row.step_s;
    text += record(event_of(row, wall_time));
  }
  add_evaluations(std::numeric_limits<int64_t>::max());
  return text;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) noexcept {
  uint32_t value = 0xffffffffu;
  for (const char byte : bytes)
    value = kCrcTable[(value ^ static_cast<unsigned char>(byte)) & 0xff] ^ value >> 8;
  return ~value;
}

uint32_t masked_crc32c(std::string_view bytes) noexcept {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8u;
}

EventFile::EventFile(const fs::path& folder, const RunTables& tables)
    : path_(folder / fmt::format("{}{:010}.{}.{}", kPrefix, static_cast<int64_t>(now()), base::host_name(), getpid())) {
  // Aside under a name that TensorBoard does not take for an event file, whatever a kill leaves of it.
  const fs::path aside = folder / ".events.part";
  base::write_file_atomic(aside, records_of(tables));
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().filename().string().starts_with(kPrefix)) fs::remove(entry.path());
  fs::rename(aside, path_);
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (descriptor_ < 0) throw base::SystemError(fmt::format("{}: cannot be appended to", path_.string()), errno);
  flushed_ = std::chrono::steady_clock::now();
}

EventFile::EventFile(EventFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      buffer_(std::move(other.buffer_)),
      flushed_(other.flushed_) {}

EventFile::~EventFile() {
  if (descriptor_ < 0) return;
  try {
    flush();
  } catch (const std::exception&) {
    // run.h5 has the same figures.
  }
  ::close(descriptor_);
}

void EventFile::append(const StepRow& row) { add(event_of(row, now())); }
void EventFile::append(const EvalRow& row) { add(event_of(row, now())); }

void EventFile::add(const std::string& event) {
  buffer_ += record(event);
  if (std::chrono::steady_clock::now() - flushed_ > std::chrono::seconds(1)) flush();
}

void EventFile::flush() {
  flushed_ = std::chrono::steady_clock::now();
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t written = ::write(descriptor_, buffer_.data() + done, buffer_.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int error = errno;
      buffer_.erase(0, done);
      throw base::SystemError(fmt::format("{}: cannot be written", path_.string()), error);
    }
    done += static_cast<size_t>(written);
  }
  buffer_.clear();
}

}  // namespace varscale::records
