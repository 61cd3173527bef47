// Typed errors, and the exit codes every program shares.
//
//   throw UserError("a.yaml:14: train.batch is 96, not divisible by 5 ranks x 4 images");
//   VARSCALE_CHECK(rows == wanted, "teacher input has {} rows, expected {}", rows, wanted);
//
// Errors   UserError: the user's input is at fault; one sentence (what, where, what was expected),
//          exit code 2. Everything else is ours or the machine's: exit code 1.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace varscale::base {

// The contract with batch scripts: 2 must never be retried, 75 asks to be requeued.
enum class ExitCode : int { kDone = 0, kFailure = 1, kBadInput = 2, kStopped = 75 };

// The user's configuration or input is at fault.
class UserError : public std::runtime_error {
 public:
  explicit UserError(const std::string& sentence) : std::runtime_error(sentence) {}
  template <class... Args>
  explicit UserError(fmt::format_string<Args...> format,
                     Args&&... args) requires(sizeof...(Args) > 0)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

// A call of the operating system failed; what() names the path and strerror.
class SystemError : public std::runtime_error {
 public:
  SystemError(const std::string& what, int error_number);
  int error_number() const noexcept { return error_number_; }

 private:
  int error_number_;
};

// The program was asked to stop (signal, time limit) and has saved its state: exit code 75.
class Stopped : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Thrown by VARSCALE_CHECK: one of our own invariants is broken.
class InvariantError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void fail_check(const char* file, int line, const char* condition,
                             const std::string& message);

// Runs a program's body; what it throws becomes "program: sentence" on stderr and an exit code.
int run_main(std::string_view program, const std::function<ExitCode()>& body);

}  // namespace varscale::base

#define VARSCALE_CHECK(condition, ...)                                                        \
  do {                                                                                        \
    if (!(condition)) [[unlikely]]                                                            \
      ::varscale::base::fail_check(__FILE__, __LINE__, #condition, fmt::format(__VA_ARGS__)); \
  } while (false)
