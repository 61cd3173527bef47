#include "sweep/claim.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/error.hpp"
#include "base/file.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::sweep {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kRun = "d1-s0-123abc";
const std::vector<std::string> kSteps = {"looked", "claimed", "fenced", "linked", "held", "cleared", "done"};

// What a process leaves that dies while it trains: a checkpoint, one half-written, a status half-written.
void train_a_little(const fs::path& folder) {
  base::write_file_atomic(folder / "status.json", "running");
  base::write_file_atomic(folder / "run.h5", "rows");
  fs::create_directories(folder / "checkpoints/step-000000001");
  base::write_file_atomic(folder / "checkpoints/step-000000001/manifest.json", "{}");
  fs::create_directories(folder / "checkpoints/step-000000002.tmp-n1-7");
  base::write_file_atomic(folder / "checkpoints/step-000000002.tmp-n1-7/manifest.json", "{}");
  base::write_file_atomic(folder / "status.json.tmp-n1-7", "runn");
}

class Claiming : public testing::Test {
 protected:
  // One that sees all others dead from its second look on, but those of this process.
  JobOptions impatient() {
    JobOptions options;
    options.expiry_s = 1e6;  // so that no job of a test beats while it lasts
    options.clock = [this] { return now_ += 1e9; };
    return options;
  }
  Claims patient() { return {output_.path(), {}}; }

  // A claim by the first or the second look.
  static std::optional<Claim> insist(Claims& claims) {
    std::optional<Claim> claim = claims.take(kRun);
    return claim ? std::move(claim) : claims.take(kRun);
  }

  // Another launch, as a process of its own, that takes the run: body has its claim, or none. Its exit code is
  // body's.
  pid_t launch(const std::function<int(std::optional<Claim>)>& body, std::function<void(std::string_view)> after = {}) {
    const pid_t pid = fork();
    if (pid != 0) return pid;
    try {
      JobOptions options;
      options.expiry_s = 1e6;
      options.after = std::move(after);
      Claims claims(output_.path(), options);
      _exit(body(claims.take(kRun)));
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      _exit(100);
    }
  }
  static int end_of(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  static void wait_until_stopped(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, WUNTRACED);
    ASSERT_TRUE(WIFSTOPPED(status));
  }
  // A launch that is killed while it trains.
  void a_dead_launch() {
    ASSERT_EQ(end_of(launch([](std::optional<Claim> claim) {
                if (!claim) return 1;
                train_a_little(claim->attempt().folder);
                _exit(0);  // nothing is released
              })),
              0);
  }

  fs::path run() const { return output_ / "runs" / kRun; }
  std::vector<std::string> links() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(output_ / "attempts"))
      names.push_back(entry.path().filename().string());
    return names;
  }
  void expect_sound(const Claim& claim) const {
    EXPECT_TRUE(claim.held());
    EXPECT_NO_THROW(claim.require_held());
    EXPECT_THAT(links(), testing::ElementsAre(claim.attempt().folder.filename().string()));
    EXPECT_TRUE(fs::equivalent(claim.attempt().folder, run()));
  }
  void expect_the_dead_ones_work() const {
    EXPECT_EQ(base::read_file(run() / "run.h5"), "rows");
    EXPECT_EQ(base::read_file(run() / "status.json"), "running");
    EXPECT_TRUE(fs::exists(run() / "checkpoints/step-000000001/manifest.json"));
    EXPECT_FALSE(fs::exists(run() / "checkpoints/step-000000002.tmp-n1-7"));
    EXPECT_FALSE(fs::exists(run() / "status.json.tmp-n1-7"));
  }

  base::TemporaryFolder output_;
  double now_ = 0;
};

TEST_F(Claiming, GoesFromJobToJobByRelease) {
  Claims first = patient(), second = patient();
  EXPECT_FALSE(second.holder(kRun));
  {
    const std::optional<Claim> claim = first.take(kRun);
    ASSERT_TRUE(claim);
    EXPECT_EQ(claim->attempt().epoch, 1);
    expect_sound(*claim);
    EXPECT_FALSE(second.take(kRun));
    EXPECT_FALSE(first.take(kRun));  // not twice by one job either
    ASSERT_TRUE(second.holder(kRun));
    EXPECT_EQ(second.holder(kRun)->job.nonce, first.job().nonce);
    EXPECT_TRUE(second.take("d2-s0-123abc"));  // another run
  }
  EXPECT_THAT(links(), testing::IsEmpty());
  std::optional<Claim> claim = second.take(kRun);
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->attempt().epoch, 2);
  expect_sound(*claim);
  claim->release();
  claim->release();
  EXPECT_FALSE(claim->held());
  EXPECT_FALSE(first.holder(kRun));
}

TEST_F(Claiming, ContinuesFoldersFromBeforeClaims) {
  fs::create_directories(run());
  train_a_little(run());
  Claims claims = patient();
  const std::optional<Claim> claim = claims.take(kRun);
  ASSERT_TRUE(claim);
  expect_sound(*claim);
  EXPECT_EQ(base::read_file(claim->attempt().folder / "run.h5"), "rows");
  EXPECT_TRUE(fs::exists(claim->attempt().folder / "checkpoints/step-000000001/manifest.json"));
}

TEST_F(Claiming, TakesOverFromADeadLaunchAtOnce) {
  a_dead_launch();
  Claims claims = patient();
  EXPECT_FALSE(claims.holder(kRun));
  const std::optional<Claim> claim = claims.take(kRun);
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->attempt().epoch, 2);
  expect_sound(*claim);
  expect_the_dead_ones_work();
}

TEST_F(Claiming, TakesOverFromADeadHostWhenItsBeatHasStoodStill) {
  Job job = this_job(1);
  job.host = "gone";
  fs::create_directories(run() / "claims");
  base::write_file_atomic(run() / "claims/claim-4", job_text(job));
  double now = 0;
  JobOptions options;
  options.clock = [&] { return now; };
  Claims claims(output_.path(), options);
  EXPECT_FALSE(claims.take(kRun));
  EXPECT_EQ(claims.holder(kRun)->life, Life::kUnknown);
  now = 119;
  EXPECT_FALSE(claims.take(kRun));
  now = 120;
  const std::optional<Claim> claim = claims.take(kRun);
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->attempt().epoch, 5);
  expect_sound(*claim);
}

TEST_F(Claiming, MendsATakeoverThatDiedAfterAnyStep) {
  for (const std::string& step : kSteps) {
    SCOPED_TRACE(step);
    fs::remove_all(run());
    a_dead_launch();
    ASSERT_EQ(end_of(launch([](const auto&) { return 1; },
                            [&](std::string_view at) {
                              if (at == step) _exit(0);
                            })),
              0);
    Claims claims = patient();
    const std::optional<Claim> claim = claims.take(kRun);
    ASSERT_TRUE(claim);
    EXPECT_EQ(claim->attempt().epoch, step == "looked" ? 2 : 3);
    expect_sound(*claim);
    expect_the_dead_ones_work();
  }
}

TEST_F(Claiming, KeepsATakeoverThatSleepsAfterAnyStepFromTheRun) {
  for (const std::string& step : kSteps) {
    SCOPED_TRACE(step);
    fs::remove_all(run());
    a_dead_launch();
    const pid_t sleeper = launch(
        [](std::optional<Claim> claim) {
          if (!claim) return 0;
          if (claim->held()) return 1;
          try {
            base::write_file_atomic(claim->attempt().folder / "run.h5", "another history");
            return 2;
          } catch (const base::UserError&) {
            return 0;
          }
        },
        [&](std::string_view at) {
          if (at == step) raise(SIGSTOP);
        });
    wait_until_stopped(sleeper);
    Claims claims(output_.path(), impatient());
    const std::optional<Claim> claim = insist(claims);
    ASSERT_TRUE(claim);
    // What this job is writing when the other wakes up.
    const fs::path unfinished = claim->attempt().folder / "checkpoints/step-000000003.tmp-n2-7";
    fs::create_directory(unfinished);
    base::write_file_atomic(claim->attempt().folder / "run.h5", "more rows");
    kill(sleeper, SIGCONT);
    EXPECT_EQ(end_of(sleeper), 0);
    expect_sound(*claim);
    EXPECT_TRUE(fs::exists(unfinished));
    EXPECT_EQ(base::read_file(run() / "run.h5"), "more rows");
    EXPECT_FALSE(fs::exists(run() / "claims/claim-2.released"));
  }
}

TEST_F(Claiming, LeavesAFormerHolderNothingToPublish) {
  // It sleeps with a file open for appending and the next checkpoint complete but for its name.
  const pid_t holder = launch([](std::optional<Claim> claim) {
    const fs::path folder = claim->attempt().folder;
    train_a_little(folder);
    const int rows = open((folder / "run.h5").c_str(), O_WRONLY | O_APPEND);
    base::AtomicFolder checkpoint(folder / "checkpoints/step-000000009");
    base::AtomicFile status(folder / "status.json");
    base::write_file_atomic(checkpoint.temporary() / "manifest.json", "{}");
    raise(SIGSTOP);
    const auto fails = [](const auto& action) {
      try {
        action();
        return false;
      } catch (const std::exception&) {
        return true;
      }
    };
    if (write(rows, " of another history", 19) != 19) return 1;
    if (!fails([&] { checkpoint.commit(); })) return 2;
    if (!fails([&] { status.commit(); })) return 3;
    if (!fails([&] { base::write_file_atomic(folder / "run.h5", "x"); })) return 4;
    if (!fails([&] { fs::create_directory(folder / "checkpoints"); })) return 5;
    if (fs::remove(folder / "checkpoints/step-000000001/manifest.json")) return 6;  // pruning
    if (claim->held()) return 7;
    try {
      claim->require_held();
      return 8;
    } catch (const ClaimLost& lost) {
      const std::string said = lost.what();
      if (said.find(kRun + ": this launch no longer holds the run: job ") == std::string::npos) return 9;
    }
    claim->release();
    return 0;
  });
  wait_until_stopped(holder);
  Claims claims(output_.path(), impatient());
  const std::optional<Claim> claim = insist(claims);
  ASSERT_TRUE(claim);
  kill(holder, SIGCONT);
  EXPECT_EQ(end_of(holder), 0);
  expect_sound(*claim);
  expect_the_dead_ones_work();
  EXPECT_FALSE(fs::exists(run() / "checkpoints/step-000000009"));
  EXPECT_FALSE(fs::exists(run() / "claims/claim-1.released"));
}

TEST_F(Claiming, GivesARunToOneOfManyThatTakeItOver) {
  constexpr int kThreads = 8;
  for (int round = 0; round < 10; ++round) {
    fs::remove_all(run());
    a_dead_launch();
    std::vector<std::unique_ptr<Claims>> jobs;
    for (int i = 0; i < kThreads; ++i) jobs.push_back(std::make_unique<Claims>(output_.path(), JobOptions{}));
    std::vector<std::optional<Claim>> taken;
    for (int i = 0; i < kThreads; ++i) taken.emplace_back();
    std::atomic<int> ready = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i)
      threads.emplace_back([&, i] {
        ++ready;
        while (ready < kThreads) std::this_thread::yield();
        if (auto claim = jobs[i]->take(kRun)) taken[i].emplace(std::move(*claim));
      });
    for (std::thread& thread : threads) thread.join();
    int holders = 0;
    for (const auto& claim : taken)
      if (claim) {
        ++holders;
        expect_sound(*claim);
        EXPECT_EQ(claim->attempt().epoch, 2);
      }
    EXPECT_EQ(holders, 1);
  }
}

TEST_F(Claiming, GivesARunToOneAtATimeHoweverOftenItChangesHands) {
  constexpr int kThreads = 4, kTurns = 25;
  std::atomic<int> inside = 0, turns = 0, most = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i)
    threads.emplace_back([&] {
      Claims claims = patient();
      while (turns < kTurns) {
        std::optional<Claim> claim = claims.take(kRun);
        if (!claim) continue;
        most = std::max(most.load(), ++inside);
        ++turns;
        EXPECT_TRUE(claim->held());
        --inside;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(most, 1);
  Claims claims = patient();
  EXPECT_GT(claims.take(kRun)->attempt().epoch, kTurns);  // every turn had a number of its own
}

TEST_F(Claiming, IsNotMisledByAJobThatWasFasterAfterTheLook) {
  a_dead_launch();
  Claims fast = patient();
  std::optional<Claim> taken;
  JobOptions options;
  options.after = [&](std::string_view step) {
    if (step != "looked") return;
    if (auto claim = fast.take(kRun)) taken.emplace(std::move(*claim));
  };
  Claims slow(output_.path(), options);
  EXPECT_FALSE(slow.take(kRun));
  ASSERT_TRUE(taken);
  expect_sound(*taken);
}

TEST_F(Claiming, BeginsAnewWhereAFolderWasMovedAway) {
  Claims first = patient(), second = patient();
  const std::optional<Claim> old = first.take(kRun);
  train_a_little(old->attempt().folder);
  fs::rename(run(), output_ / "moved");
  EXPECT_FALSE(old->held());
  EXPECT_THAT(base::message_of<ClaimLost>([&] { old->require_held(); }), HasSubstr("its claims are gone"));
  const std::optional<Claim> claim = second.take(kRun);
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->attempt().epoch, 1);
  expect_sound(*claim);
  EXPECT_FALSE(fs::exists(old->attempt().folder));  // though its epoch was 1, too
  EXPECT_FALSE(old->held());
  EXPECT_FALSE(fs::exists(run() / "run.h5"));
}

TEST_F(Claiming, NamesAClaimThatCannotBeRead) {
  fs::create_directories(run() / "claims");
  base::write_file_atomic(run() / "claims/claim-3", "{");
  Claims claims = patient();
  EXPECT_THAT(base::message_of<base::UserError>([&] { claims.take(kRun); }), HasSubstr("claims/claim-3"));
}

TEST(Attempt, TravelsAsText) {
  const Attempt attempt{.run = "out/runs/d1", .folder = "out/attempts/d1.3-ab", .epoch = 3, .job = "abc"};
  const Attempt back = Attempt::parse(attempt.text());
  EXPECT_EQ(back.run, attempt.run);
  EXPECT_EQ(back.folder, attempt.folder);
  EXPECT_EQ(back.epoch, attempt.epoch);
  EXPECT_EQ(back.job, attempt.job);
  EXPECT_EQ(attempt.plain("out/attempts/d1.3-ab/run.h5: no; out/attempts/d1.3-ab: no"),
            "out/runs/d1/run.h5: no; out/runs/d1: no");
}

}  // namespace
}  // namespace varscale::sweep
