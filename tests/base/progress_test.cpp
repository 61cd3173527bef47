#include "base/progress.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>
#include <thread>
#include <vector>

namespace varscale::base {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(FormatDuration, ChoosesTwoUnits) {
  EXPECT_EQ(format_duration(0), "0.0 s");
  EXPECT_EQ(format_duration(1.25), "1.2 s");
  EXPECT_EQ(format_duration(9.96), "10 s");
  EXPECT_EQ(format_duration(12.4), "12 s");
  EXPECT_EQ(format_duration(59.6), "1 min 00 s");
  EXPECT_EQ(format_duration(185), "3 min 05 s");
  EXPECT_EQ(format_duration(2 * 3600 + 7 * 60 + 59), "2 h 07 min");
  EXPECT_EQ(format_duration(47 * 3600), "47 h 00 min");
  EXPECT_EQ(format_duration(75 * 3600), "3 d 03 h");
  EXPECT_EQ(format_duration(-1), "0.0 s");
  EXPECT_EQ(format_duration(INFINITY), "unknown");
}

TEST(FormatCount, ScalesByThousands) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(512), "512");
  EXPECT_EQ(format_count(0.125), "0.125");
  EXPECT_EQ(format_count(4096), "4.10 k");
  EXPECT_EQ(format_count(310'283'520), "310.3 M");
  EXPECT_EQ(format_count(1.28e9), "1.28 G");
  EXPECT_EQ(format_count(999'960), "1.00 M");
  EXPECT_EQ(format_count(-2500), "-2.50 k");
  EXPECT_EQ(format_count(2e18), "2000.0 P");
}

TEST(FormatBytes, ScalesByPowersOf1024) {
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1.00 KiB");
  EXPECT_EQ(format_bytes(1.5 * 1024 * 1024), "1.50 MiB");
  EXPECT_EQ(format_bytes(139.0 * 1024 * 1024 * 1024), "139.0 GiB");
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

TEST(Progress, WritesAPlainLineAtEveryTenth) {
  testing::internal::CaptureStderr();
  Progress progress("tokenise", 40, "images", Progress::Style::kPlain);
  for (int i = 0; i < 40; ++i) {
    if (i == 39) progress.note("loss 4.512");
    progress.advance(1);
  }
  progress.finish();
  progress.finish();  // no effect
  const auto lines = lines_of(testing::internal::GetCapturedStderr());
  ASSERT_EQ(lines.size(), 10u);
  for (int tenth = 1; tenth <= 9; ++tenth)
    EXPECT_THAT(lines[tenth - 1],
                StartsWith("tokenise: " + std::to_string(4 * tenth) + " of 40 images (" +
                           std::to_string(10 * tenth) + " %)"));
  EXPECT_THAT(lines[0], AllOf(HasSubstr("/s, "), HasSubstr(" left")));
  EXPECT_THAT(lines[9], AllOf(StartsWith("tokenise: 40 images in "), HasSubstr(", loss 4.512")));
  EXPECT_THAT(lines[9], Not(HasSubstr("left")));
}

TEST(Progress, SaysASentenceAtOnceEvenWhenSilent) {
  testing::internal::CaptureStderr();
  Progress silent("train", 100, "steps", Progress::Style::kSilent);
  silent.advance(50);
  silent.say("step 50 was skipped");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "train: step 50 was skipped\n");
}

TEST(Progress, SkipsTenthsThatOneStepPasses) {
  testing::internal::CaptureStderr();
  Progress progress("load", 100, "files", Progress::Style::kPlain);
  progress.advance(55);
  progress.advance(1);
  progress.finish();
  const auto lines = lines_of(testing::internal::GetCapturedStderr());
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_THAT(lines[0], StartsWith("load: 55 of 100 files (55 %)"));
}

TEST(Progress, ResumesBehindTheTenthsAlreadyDone) {
  testing::internal::CaptureStderr();
  Progress progress("train", 100, "steps", Progress::Style::kPlain);
  progress.set(42);
  progress.advance(1);
  progress.advance(7);
  progress.finish();
  const auto lines = lines_of(testing::internal::GetCapturedStderr());
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_THAT(lines[0], StartsWith("train: 50 of 100 steps (50 %)"));
}

TEST(Progress, CountsWhatSeveralThreadsDo) {
  testing::internal::CaptureStderr();
  Progress progress("tokenise", 0, "images", Progress::Style::kPlain);  // total unknown
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) progress.advance(1);
    });
  for (std::thread& thread : threads) thread.join();
  progress.finish();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), StartsWith("tokenise: 4000 images in "));
}

TEST(Progress, RedrawsOneLineOnATerminal) {
  testing::internal::CaptureStderr();
  Progress progress("train", 10, "steps", Progress::Style::kTerminal);
  progress.advance(10);
  progress.finish();
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, StartsWith("\rtrain: 10 "));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  EXPECT_EQ(text.back(), '\n');
}

TEST(Progress, IsPlainWithoutATerminalAndCanBeSilent) {
  testing::internal::CaptureStderr();  // a file, so no terminal
  {
    Progress progress("a", 2, "steps");
    progress.advance(1);
    Progress silent("b", 2, "steps", Progress::Style::kSilent);
    silent.advance(1);
    silent.finish();
  }
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, StartsWith("a: 1 of 2 steps (50 %)"));
  EXPECT_THAT(text, AllOf(Not(HasSubstr("\r")), Not(HasSubstr("b:"))));
}

}  // namespace
}  // namespace varscale::base
