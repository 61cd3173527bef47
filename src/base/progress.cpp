#include "base/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <utility>

namespace varscale::base {
namespace {

using std::chrono::steady_clock;
constexpr std::chrono::milliseconds kTerminalInterval{100};
constexpr std::chrono::seconds kPlainInterval{60};

double seconds_between(steady_clock::time_point from, steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// Scales down by `step` to the unit reached; a value that would print as 1000.0 moves up one.
std::string format_scaled(double value, double step, const char* const* units, int unit_count) {
  int unit = 0;
  while (std::abs(value) >= step - 0.05 && unit + 1 < unit_count) {
    value /= step;
    ++unit;
  }
  const double magnitude = std::abs(value);
  const int digits = unit == 0 ? 0 : magnitude < 9.995 ? 2 : 1;
  return fmt::format("{:.{}f}{}", value, digits, units[unit]);
}

}  // namespace

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds)) return "unknown";
  seconds = std::max(seconds, 0.0);
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(std::min(seconds, 1e15)));
  const int64_t minutes = whole / 60, hours = minutes / 60, days = hours / 24;
  if (whole < 60) return fmt::format("{} s", whole);
  if (minutes < 60) return fmt::format("{} min {:02} s", minutes, whole % 60);
  if (hours < 48) return fmt::format("{} h {:02} min", hours, minutes % 60);
  return fmt::format("{} d {:02} h", days, hours % 24);
}

std::string format_count(double value) {
  static constexpr std::array<const char*, 6> kUnits = {"", " k", " M", " G", " T", " P"};
  if (std::abs(value) < 1000 && value != std::floor(value)) return fmt::format("{:.3g}", value);
  return format_scaled(value, 1000, kUnits.data(), kUnits.size());
}

std::string format_bytes(double bytes) {
  static constexpr std::array<const char*, 6> kUnits = {" B",   " KiB", " MiB",
                                                        " GiB", " TiB", " PiB"};
  return format_scaled(bytes, 1024, kUnits.data(), kUnits.size());
}

Progress::Progress(std::string what, int64_t total, std::string unit, Style style)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      style_(style),
      begin_(steady_clock::now()),
      last_drawn_(begin_) {
  if (style_ == Style::kAuto) style_ = isatty(STDERR_FILENO) ? Style::kTerminal : Style::kPlain;
}

Progress::~Progress() {
  // Left early, by an exception: keep the terminal's last figures and start a new line.
  if (!finished_ && style_ == Style::kTerminal) std::fputs("\n", stderr);
}

void Progress::advance(int64_t count) {
  const std::lock_guard lock(mutex_);
  done_ += count;
  draw(false);
}

void Progress::set(int64_t done) {
  const std::lock_guard lock(mutex_);
  done_ = start_done_ = done;
  next_tenth_ = total_ > 0 ? 10 * done / total_ + 1 : 1;
  begin_ = last_drawn_ = steady_clock::now();
}

void Progress::note(std::string text) {
  const std::lock_guard lock(mutex_);
  note_ = std::move(text);
}

void Progress::say(const std::string& sentence) {
  const std::lock_guard lock(mutex_);
  const char* clear = style_ == Style::kTerminal ? "\r\x1b[K" : "";
  std::fputs(fmt::format("{}{}: {}\n", clear, what_, sentence).c_str(), stderr);
  std::fflush(stderr);
}

void Progress::finish() {
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  finished_ = true;
  draw(true);
}

void Progress::draw(bool last) {
  if (style_ == Style::kSilent) return;
  const auto now = steady_clock::now();
  const bool terminal = style_ == Style::kTerminal;
  // The tenth tenth is finish()'s line.
  const bool next_tenth = total_ > 0 && next_tenth_ < 10 && 10 * done_ >= next_tenth_ * total_;
  const bool due = terminal ? now - last_drawn_ >= kTerminalInterval
                            : next_tenth || now - last_drawn_ >= kPlainInterval;
  if (!last && !due) return;
  last_drawn_ = now;
  if (total_ > 0) next_tenth_ = std::max(next_tenth_, 10 * done_ / total_ + 1);

  const double elapsed_s = seconds_between(begin_, now);
  const auto fresh = static_cast<double>(done_ - start_done_);
  const double rate = elapsed_s > 0 ? fresh / elapsed_s : 0;
  std::string line = fmt::format("{}: {}", what_, done_);
  if (total_ > 0 && !last) line += fmt::format(" of {}", total_);
  line += ' ' + unit_;
  if (total_ > 0 && !last) line += fmt::format(" ({} %)", 100 * done_ / total_);
  if (last) line += fmt::format(" in {}", format_duration(elapsed_s));
  if (rate > 0) line += fmt::format(", {}/s", format_count(rate));
  if (!last && rate > 0 && total_ > done_)
    line += fmt::format(", {} left", format_duration(static_cast<double>(total_ - done_) / rate));
  if (!note_.empty()) line += ", " + note_;
  // One call, so that lines of several processes do not mix. \x1b[K clears what a longer line left.
  if (terminal) line = "\r" + line + "\x1b[K";
  if (!terminal || last) line += '\n';
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace varscale::base
