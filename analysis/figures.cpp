#include "figures.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

extern char** environ;

namespace varscale::analysis {
namespace {

std::string find_python() {
  if (const char* stated = std::getenv("VARSCALE_PYTHON")) return stated;
  const std::string own = VARSCALE_SOURCE_DIR "/.deps/venv/bin/python";
  return std::filesystem::exists(own) ? own : "python3";
}

// The exit status of a program, or -1 where it does not start. Its output goes to `log`.
int run_program(std::vector<std::string> words, const std::filesystem::path& log) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0644);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  pid_t child = 0;
  const int error =
      posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return -1;
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

std::string draw_figures(const std::filesystem::path& out) {
  const std::string python = find_python();
  const std::filesystem::path log = out / "figures.log";
  const int status =
      run_program({python, VARSCALE_SOURCE_DIR "/analysis/figures.py", out.string()}, log);
  if (status == 0) {
    std::filesystem::remove(log);
    return {};
  }
  if (status == -1 || status == 127) {
    std::filesystem::remove(log);
    return fmt::format(
        "figures were left out: {} could not be started; ./launch/setup.sh installs Python "
        "packages",
        python);
  }
  return fmt::format("figures were left out: {} with figures.py ended with status {}; see {}",
                     python, status, log.string());
}

}  // namespace varscale::analysis
