// A progress line with the time left: redrawn in place on a terminal, plain lines elsewhere.
//
//   Progress progress("tokenise", n_images, "images");
//   progress.advance(64);                     // any thread
//   progress.note("loss 4.512");              // shown behind the figures
//   progress.finish();                        // last line with the total time
//
// Plain lines come at 10 %, 20 %, ... and at least once a minute. Writes to stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

namespace varscale::base {

std::string format_duration(double seconds);  // "12 s", "3 min 05 s", "2 h 07 min"
std::string format_count(double value);       // "310.3 M", "1.28 G", "512"
std::string format_bytes(double bytes);       // "1.7 GiB"

class Progress {
 public:
  enum class Style { kAuto, kTerminal, kPlain, kSilent };
  Progress(std::string what, int64_t total, std::string unit, Style style = Style::kAuto);
  ~Progress();
  void advance(int64_t count);
  void set(int64_t done);  // for resumed work: rate is measured from here on
  void note(std::string text);
  void say(const std::string& sentence);  // a line of its own, at once; kSilent says it too
  void finish();

 private:
  void draw(bool last);
  std::mutex mutex_;
  std::string what_, unit_, note_;
  int64_t total_, done_ = 0, start_done_ = 0, next_tenth_ = 1;
  Style style_;
  std::chrono::steady_clock::time_point begin_, last_drawn_;
  bool finished_ = false;
};

}  // namespace varscale::base
