#include "base/error.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <new>

namespace varscale::base {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  int code;
  std::string text;
};

Outcome run(const std::function<ExitCode()>& body) {
  testing::internal::CaptureStderr();
  const int code = run_main("var_plan", body);
  return {code, testing::internal::GetCapturedStderr()};
}

TEST(RunMain, HandsTheBodysCodeOn) {
  EXPECT_EQ(run([] { return ExitCode::kDone; }).code, 0);
  EXPECT_EQ(run([] { return ExitCode::kStopped; }).code, 75);
  EXPECT_EQ(run([] { return ExitCode::kDone; }).text, "");
}

TEST(RunMain, TurnsBadInputIntoCode2AndOneLineASentence) {
  const Outcome outcome =
      run([]() -> ExitCode { throw UserError("a.yaml:{}: wrong\na.yaml:9: also", 4); });
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.text, "var_plan: a.yaml:4: wrong\nvar_plan: a.yaml:9: also\n");
}

TEST(RunMain, TurnsAStopInGoodOrderIntoCode75) {
  const Outcome outcome = run([]() -> ExitCode { throw Stopped("stopped after step 12"); });
  EXPECT_EQ(outcome.code, 75);
  EXPECT_EQ(outcome.text, "var_plan: stopped after step 12\n");
}

TEST(RunMain, TurnsEveryOtherExceptionIntoCode1) {
  EXPECT_EQ(run([]() -> ExitCode { throw SystemError("x.h5", ENOSPC); }).code, 1);
  EXPECT_EQ(run([]() -> ExitCode { throw std::bad_alloc(); }).code, 1);
  const Outcome unknown = run([]() -> ExitCode { throw 3; });
  EXPECT_EQ(unknown.code, 1);
  EXPECT_THAT(unknown.text, HasSubstr("unknown type"));
}

TEST(UserError, KeepsBracesOfAFinishedSentence) {
  EXPECT_STREQ(UserError(std::string("key {x} is odd")).what(), "key {x} is odd");
}

TEST(SystemError, NamesThePathAndTheReason) {
  const SystemError error("results/run.h5", ENOSPC);
  EXPECT_STREQ(error.what(), "results/run.h5: No space left on device");
  EXPECT_EQ(error.error_number(), ENOSPC);
}

TEST(Check, ThrowsWithMessageConditionAndPlace) {
  const int rows = 3;
  try {
    VARSCALE_CHECK(rows == 4, "teacher input has {} rows, expected {}", rows, 4);
    FAIL() << "nothing was thrown";
  } catch (const InvariantError& error) {
    EXPECT_THAT(error.what(), HasSubstr("teacher input has 3 rows, expected 4"));
    EXPECT_THAT(error.what(), HasSubstr("rows == 4"));
    EXPECT_THAT(error.what(), HasSubstr("error_test.cpp:"));
  }
  EXPECT_NO_THROW(VARSCALE_CHECK(rows == 3, "not reached"));
}

}  // namespace
}  // namespace varscale::base
