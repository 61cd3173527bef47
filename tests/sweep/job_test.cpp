#include "sweep/job.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <sstream>
#include <string>
#include <thread>

#include "base/error.hpp"
#include "base/file.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::sweep {
namespace {

namespace fs = std::filesystem;
using base::TemporaryFolder;
using testing::HasSubstr;

// A child process that does nothing, until it is told otherwise.
class Child {
 public:
  Child() : pid_(fork()) {
    if (pid_ == 0)
      for (;;) pause();
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  void stop() {
    kill(pid_, SIGSTOP);
    waitpid(pid_, nullptr, WUNTRACED);
  }
  void die_unburied() {  // a zombie
    kill(pid_, SIGKILL);
    siginfo_t info;
    waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);
  }
  void bury() { waitpid(pid_, nullptr, 0); }

  Job job() const {
    Job job = this_job(1);
    job.pid = pid_;
    const std::string stat = base::read_file("/proc/" + std::to_string(pid_) + "/stat");
    job.pid_start = std::stoll([&] {
      std::istringstream fields(stat.substr(stat.rfind(')') + 2));
      std::string field;
      for (int i = 3; i <= 22; ++i) fields >> field;
      return field;
    }());
    return job;
  }

 private:
  pid_t pid_;
};

// A job of another machine, of which only its file is seen.
Job far_job(const std::string& nonce = "far") {
  Job job = this_job(1);
  job.nonce = nonce;
  job.host = "elsewhere";
  job.slurm_job.clear();
  return job;
}

class Watching : public testing::Test {
 protected:
  Watch watch(double expiry_s = 120) {
    return {folder_.path(), me_, expiry_s, [this] { return now_; }};
  }
  void beat(const Job& job, const std::string& text) { folder_.write(job.nonce + ".json", text); }

  TemporaryFolder folder_;
  Job me_ = [] {
    Job me = this_job(1);
    me.slurm_job.clear();
    return me;
  }();
  double now_ = 1000;
};

TEST(Job, ReadsBackWhatItWrites) {
  Job job = this_job(20);
  job.slurm_job = "45";
  job.slurm_restart = 2;
  const Job back = parse_job(job_text(job), "claim-1");
  EXPECT_EQ(job_text(back), job_text(job));
  EXPECT_EQ(back.nonce, job.nonce);
  EXPECT_EQ(back.pid, getpid());
  EXPECT_GT(back.pid_start, 0);
  EXPECT_NE(this_job(20).nonce, job.nonce);
  EXPECT_THAT(job.words(), HasSubstr(", Slurm job 45"));
  for (const char* text : {"", "{", "[]", "{\"job\": 3}"})
    EXPECT_THAT(base::message_of<base::UserError>([&] { parse_job(text, "x/claim-7"); }), HasSubstr("x/claim-7"));
}

TEST(Job, KnowsItsSlurmJob) {
  setenv("SLURM_JOB_ID", "77", 1);
  setenv("SLURM_CLUSTER_NAME", "alps", 1);
  setenv("SLURM_RESTART_COUNT", "3", 1);
  const Job job = this_job(1);
  for (const char* name : {"SLURM_JOB_ID", "SLURM_CLUSTER_NAME", "SLURM_RESTART_COUNT"}) unsetenv(name);
  EXPECT_EQ(job.slurm_job, "77");
  EXPECT_EQ(job.slurm_cluster, "alps");
  EXPECT_EQ(job.slurm_restart, 3);
}

TEST_F(Watching, SeesAtOnceThatAProcessOfThisMachineIsGone) {
  Child child;
  const Job job = child.job();
  beat(job, "1");
  Watch watch = this->watch();
  EXPECT_EQ(watch.judge(job), Life::kAlive);
  child.stop();
  EXPECT_EQ(this->watch().judge(job), Life::kUnknown);  // there, but nothing shows that it lives
  child.die_unburied();
  EXPECT_EQ(watch.judge(job), Life::kDead);
  child.bury();
  EXPECT_EQ(watch.judge(job), Life::kDead);
}

TEST_F(Watching, TellsAProcessFromAnotherOfItsNumber) {
  Child child;
  Job job = child.job();
  EXPECT_EQ(watch().judge(job), Life::kAlive);
  job.pid_start -= 1;
  EXPECT_EQ(watch().judge(job), Life::kDead);
}

TEST_F(Watching, LooksForNoProcessOfAnotherMachineStartOrContainer) {
  Job gone;
  {
    const Child child;
    gone = child.job();
  }
  EXPECT_EQ(watch().judge(gone), Life::kDead);
  for (std::string Job::*where : {&Job::host, &Job::boot, &Job::pid_space}) {
    Job job = gone;
    job.*where = "another";
    EXPECT_EQ(watch().judge(job), Life::kUnknown);
  }
}

TEST_F(Watching, CallsAJobDeadWhoseBeatStandsStill) {
  const Job job = far_job();
  beat(job, "7");
  Watch watch = this->watch();
  EXPECT_EQ(watch.judge(job), Life::kUnknown);
  now_ += 119;
  EXPECT_EQ(watch.judge(job), Life::kUnknown);
  beat(job, "8");
  EXPECT_EQ(watch.judge(job), Life::kAlive);
  now_ += 119;
  EXPECT_EQ(watch.judge(job), Life::kAlive);
  now_ += 1;
  EXPECT_EQ(watch.judge(job), Life::kDead);
  beat(job, "9");  // it has woken up
  EXPECT_EQ(watch.judge(job), Life::kAlive);
  fs::remove(folder_ / "far.json");  // it has ended
  now_ += 119;
  EXPECT_EQ(watch.judge(job), Life::kAlive);
  now_ += 1;
  EXPECT_EQ(watch.judge(job), Life::kDead);
}

TEST_F(Watching, CountsFromItsOwnFirstLookAndEachJobAlone) {
  const Job early = far_job("early"), late = far_job("late");
  Watch watch = this->watch();  // neither has a file
  EXPECT_EQ(watch.judge(early), Life::kUnknown);
  now_ += 100;
  EXPECT_EQ(watch.judge(late), Life::kUnknown);
  now_ += 20;
  EXPECT_EQ(watch.judge(early), Life::kDead);
  EXPECT_EQ(watch.judge(late), Life::kUnknown);
  EXPECT_EQ(this->watch().judge(early), Life::kUnknown);  // another launch has not looked so long
}

TEST_F(Watching, GivesAJobThreeOfItsOwnBeats) {
  Job job = far_job();
  job.beat_s = 100;
  Watch watch = this->watch(120);
  watch.judge(job);
  now_ += 299;
  EXPECT_EQ(watch.judge(job), Life::kUnknown);
  now_ += 1;
  EXPECT_EQ(watch.judge(job), Life::kDead);
}

TEST_F(Watching, IsNotMovedByClocksThatAreWrong) {
  const Job job = far_job();
  const auto file = folder_ / "far.json";
  beat(job, "7");
  Watch watch = this->watch();
  EXPECT_EQ(watch.judge(job), Life::kUnknown);
  // The other's time of day is years off, either way.
  for (const auto off : {std::chrono::hours(-100000), std::chrono::hours(100000)}) {
    fs::last_write_time(file, fs::file_time_type::clock::now() + off);
    EXPECT_EQ(watch.judge(job), Life::kUnknown);
  }
  now_ -= 1e6;  // so does a clock that ought not to go back
  EXPECT_EQ(watch.judge(job), Life::kUnknown);
  now_ += 1e6 + 119;
  EXPECT_EQ(watch.judge(job), Life::kUnknown);
  beat(job, "6");  // a counter that goes back moves all the same
  EXPECT_EQ(watch.judge(job), Life::kAlive);
}

TEST_F(Watching, KnowsThatItsOwnSlurmJobWasStartedAgain) {
  Job job = far_job();
  job.slurm_job = me_.slurm_job = "45";
  me_.slurm_restart = 1;
  EXPECT_EQ(watch().judge(job), Life::kDead);
  job.slurm_restart = 1;  // a launch beside this one in the allocation
  EXPECT_EQ(watch().judge(job), Life::kUnknown);
  job.slurm_restart = 0;
  job.slurm_cluster = "another";
  EXPECT_NE(watch().judge(job), Life::kDead);
}

TEST_F(Watching, JudgesItselfAlive) {
  now_ += 1e9;
  EXPECT_EQ(watch().judge(me_), Life::kAlive);
}

// squeue is a script that answers what its file says and notes its arguments.
class AskingSlurm : public Watching {
 protected:
  AskingSlurm() {
    bin_.write("squeue", "#!/bin/sh\necho \"$*\" >> " + (bin_ / "asked").string() + "\ncat " +
                             (bin_ / "answer").string() + "\nexit $(cat " + (bin_ / "code").string() + ")\n");
    fs::permissions(bin_ / "squeue", fs::perms::owner_all);
    setenv("PATH", (bin_.path().string() + ":" + path_).c_str(), 1);
    job_.slurm_job = "45";
  }
  ~AskingSlurm() override { setenv("PATH", path_.c_str(), 1); }
  void answer(const std::string& text, int code = 0) {
    bin_.write("answer", text);
    bin_.write("code", std::to_string(code));
  }
  std::string asked() const { return base::read_file(bin_ / "asked"); }

  TemporaryFolder bin_;
  std::string path_ = std::getenv("PATH");
  Job job_ = far_job();
};

TEST_F(AskingSlurm, BelievesThatAJobHasEndedOrWaits) {
  for (const char* state : {"", "COMPLETED\n", "CANCELLED\n", "NODE_FAIL\n", "PENDING\n", "REQUEUED\n",
                            "CLUSTER: alps\nTIMEOUT\n"}) {
    answer(state);
    EXPECT_EQ(watch().judge(job_), Life::kDead) << state;
  }
  answer("slurm_load_jobs error: Invalid job id specified\n", 1);
  EXPECT_EQ(watch().judge(job_), Life::kDead);
  EXPECT_THAT(asked(), testing::StartsWith("-h -j 45 -o %T\n"));
}

TEST_F(AskingSlurm, GoesByTheBeatWhereSlurmSaysNothingOfADeath) {
  beat(job_, "1");
  for (const char* state : {"RUNNING\n", "COMPLETING\n", "SUSPENDED\n", "RUNNING\nCOMPLETED\n", "gibberish\n"}) {
    answer(state);
    EXPECT_EQ(watch().judge(job_), Life::kUnknown) << state;
  }
  answer("slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", 1);
  Watch watch = this->watch();
  EXPECT_EQ(watch.judge(job_), Life::kUnknown);
  beat(job_, "2");
  EXPECT_EQ(watch.judge(job_), Life::kAlive);
  now_ += 120;
  EXPECT_EQ(watch.judge(job_), Life::kDead);
}

TEST_F(AskingSlurm, AsksAFewTimesPerExpiryAndOfTheRightCluster) {
  answer("RUNNING\n");
  job_.slurm_cluster = "alps";
  Watch watch = this->watch(120);
  for (int i = 0; i < 119; ++i) {
    beat(job_, std::to_string(i));
    watch.judge(job_);
    now_ += 1;
  }
  const std::string line = "-h -j 45 -o %T -M alps\n";
  EXPECT_EQ(asked(), line + line + line + line + line + line);
  answer("");
  EXPECT_EQ(watch.judge(job_), Life::kAlive);
  now_ += 1;
  EXPECT_EQ(watch.judge(job_), Life::kDead);
}

TEST_F(AskingSlurm, AsksNotOfItsOwnJobNorWithoutSqueueNorOfWhatIsNoNumber) {
  answer("");
  me_.slurm_job = "45";
  EXPECT_EQ(watch().judge(job_), Life::kUnknown);
  me_.slurm_job = "46";
  job_.slurm_job = "45; touch " + (bin_ / "harm").string();
  EXPECT_EQ(watch().judge(job_), Life::kUnknown);
  EXPECT_FALSE(fs::exists(bin_ / "harm"));
  EXPECT_FALSE(fs::exists(bin_ / "asked"));
  job_.slurm_job = "45";
  fs::remove(bin_ / "squeue");
  EXPECT_EQ(watch().judge(job_), Life::kUnknown);
}

// Waits for what another thread does; a test that hangs is stopped by CTest.
template <class Condition>
void wait_for(const Condition& condition) {
  while (!condition()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

TEST(Heartbeat, CountsUpWhileItLivesAndRemovesItsFile) {
  const TemporaryFolder folder;
  const Job job = this_job(0.005);
  const auto file = folder / (job.nonce + ".json");
  {
    const Heartbeat heartbeat(folder.path(), job);
    const std::string first = base::read_file(file);
    EXPECT_EQ(parse_job(first, file).nonce, job.nonce);
    wait_for([&] { return base::read_file(file) != first; });
    EXPECT_EQ(base::read_file(file).size(), first.size());
  }
  EXPECT_EQ(folder.entries(), 0);
}

TEST(Heartbeat, RemembersAndSaysOnceThatItCouldNotWrite) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "jobs");
  Heartbeat heartbeat(folder / "jobs", this_job(0.005));
  EXPECT_EQ(heartbeat.take_failure(), "");
  fs::rename(folder / "jobs", folder / "away");
  std::string failure;
  wait_for([&] { return !(failure = heartbeat.take_failure()).empty(); });
  EXPECT_THAT(failure, HasSubstr("cannot be written: No such file or directory"));
  fs::rename(folder / "away", folder / "jobs");
  // Beats again, and then has nothing to say.
  wait_for([&] { return heartbeat.take_failure().empty(); });
  EXPECT_THROW(Heartbeat(folder / "none", this_job(1)), base::UserError);
}

}  // namespace
}  // namespace varscale::sweep
