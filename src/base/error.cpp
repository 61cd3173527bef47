#include "base/error.hpp"

#include <malloc.h>

#include <csignal>
#include <cstdio>
#include <cstring>

namespace varscale::base {
namespace {

// One "program: line" on stderr per line of the message. fputs: a closed stderr must not throw.
void report(std::string_view program, std::string_view message) {
  while (!message.empty()) {
    const size_t end = message.find('\n');
    std::fputs(fmt::format("{}: {}\n", program, message.substr(0, end)).c_str(), stderr);
    message = end == std::string_view::npos ? std::string_view{} : message.substr(end + 1);
  }
  std::fflush(stderr);
}

// Tensors of a step are freed and taken again in the next one. By default glibc hands large blocks back to
// the kernel each time, and the page faults cost up to a third of a small model's step.
void keep_freed_memory() {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
}

}  // namespace

SystemError::SystemError(const std::string& what, int error_number)
    : std::runtime_error(fmt::format("{}: {}", what, std::strerror(error_number))),
      error_number_(error_number) {}

void fail_check(const char* file, int line, const char* condition, const std::string& message) {
  throw InvariantError(
      fmt::format("{} (broken invariant '{}' at {}:{})", message, condition, file, line));
}

int run_main(std::string_view program, const std::function<ExitCode()>& body) {
  keep_freed_memory();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow further is an error of write()
  try {
    return static_cast<int>(body());
  } catch (const UserError& error) {
    report(program, error.what());
    return static_cast<int>(ExitCode::kBadInput);
  } catch (const Stopped& stopped) {
    report(program, stopped.what());
    return static_cast<int>(ExitCode::kStopped);
  } catch (const std::exception& error) {
    report(program, error.what());
  } catch (...) {
    report(program, "an exception of unknown type ended the program");
  }
  return static_cast<int>(ExitCode::kFailure);
}

}  // namespace varscale::base
