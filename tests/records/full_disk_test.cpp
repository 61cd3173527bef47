// A disk that is full while run.h5 grows: HDF5 1.10 crashes where it is asked to close such a file.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "records/run_file.hpp"
#include "support.hpp"

namespace varscale::records {
namespace {

// In a child, whose files may not grow beyond `bytes`. Exit code 0: rows were refused with an error of the system.
int append_under_limit(const std::filesystem::path& path, rlim_t bytes) {
  ::signal(SIGXFSZ, SIG_IGN);
  {
    RunFile run = RunFile::create(path, facts());
    const rlimit limit{bytes, bytes};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    bool refused = false;
    for (int64_t step = 1; step < 5000 && !refused; ++step) {
      try {
        run.append(step_row(step));
        run.flush();
      } catch (const base::SystemError& error) {
        refused = std::string(error.what()).find("File too large") != std::string::npos;
        if (!refused) return 2;
      }
    }
    if (!refused) return 3;
    try {
      run.set_fact("complete", int64_t{1});
      return 4;
    } catch (const base::SystemError&) {
    }
  }
  return 0;
}

// The same for a whole file of 3,000 rows.
int write_under_limit(const std::filesystem::path& path, rlim_t bytes) {
  ::signal(SIGXFSZ, SIG_IGN);
  RunTables tables;
  tables.facts = facts();
  for (int64_t step = 1; step <= 3000; ++step) tables.steps.push_back(step_row(step));
  const rlimit limit{bytes, bytes};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  try {
    write_run(path, tables);
    return 5;
  } catch (const base::SystemError&) {
    return 0;
  }
}

TEST(FullDisk, IsAnErrorOfWritingAWholeFile) {
  for (const rlim_t bytes : {0, 1000, 16384, 400'000}) {
    const TemporaryFolder folder;
    folder.write("run.h5", "the old file");
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) std::exit(write_under_limit(folder / "run.h5", bytes));
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_FALSE(WIFSIGNALED(status)) << "signal " << WTERMSIG(status) << " at " << bytes;
    EXPECT_EQ(WEXITSTATUS(status), 0) << bytes;
    EXPECT_EQ(folder.entries(), 1);
    EXPECT_EQ(base::read_file(folder / "run.h5"), "the old file");
  }
}

TEST(FullDisk, IsAnErrorOfRunFileAndNotOfTheProcess) {
  for (const rlim_t bytes : {rlim_t{16384}, rlim_t{400'000}}) {
    const TemporaryFolder folder;
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) std::exit(append_under_limit(folder / "run.h5", bytes));  // with what the library does at exit
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_FALSE(WIFSIGNALED(status)) << "signal " << WTERMSIG(status);
    EXPECT_EQ(WEXITSTATUS(status), 0) << bytes;
    RunTables tables;
    tables.steps = {step_row(1)};
    RunFile::recreate(folder / "run.h5", tables);  // and the run goes on
    EXPECT_EQ(read_run(folder / "run.h5").steps.size(), 1u);
  }
}

}  // namespace
}  // namespace varscale::records
