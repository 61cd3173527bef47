// What the engines tell each other when a rank fails or does not come.
#include <ATen/ATen.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <list>

#include "comm/mpi/engine.hpp"
#include "comm/mpi/wire.hpp"

namespace varscale::comm::mpi {

namespace {

constexpr auto kAnswerTime = std::chrono::seconds(2);

// Takes a message without contents; returns who sent it.
std::optional<int> take_question(Tag tag) {
  int found = 0;
  MPI_Status status;
  check(MPI_Iprobe(MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &found, &status), "MPI_Iprobe");
  if (found == 0) return std::nullopt;
  check(MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE),
        "MPI_Recv");
  return status.MPI_SOURCE;
}

}  // namespace

void Engine::abort(std::string_view why, int exit_code) noexcept {
  {
    const std::scoped_lock lock(mutex_);
    if (!abort_) abort_ = {std::string(why), exit_code};
    changed_.notify_all();
  }
  sleep(10);  // this process has ended before, unless its MPI stands still
  if (turn_ == Turn::kNone || turn_ == Turn::kAsking) say(why);
  _exit(exit_code);
}

void Engine::obey_abort() {
  std::optional<Abort> abort;
  {
    const std::scoped_lock lock(mutex_);
    abort = abort_;
  }
  if (!abort) return;
  bool speaks = true;
  try {
    speaks = is_my_turn();
  } catch (const CommError&) {  // the library fails: nobody else may be left to speak
  }
  if (speaks) {
    turn_ = Turn::kMine;
    say(abort->why);
    MPI_Abort(MPI_COMM_WORLD, abort->exit_code);
  }
  for (;;) {  // until the launch ends
    try {
      answer_questions();
    } catch (const CommError&) {
    }
    usleep(1000);
  }
}

void Engine::say(std::string_view why) const {
  const std::string me = fmt::format("rank {}", rank_);
  const bool named = why.starts_with(me + " ");  // "rank 1 has waited ..."
  std::fputs(fmt::format("{}{}\n", named ? "" : me + ": ", why).c_str(), stderr);
  std::fflush(stderr);
}

void Engine::answer_turn(int asker) {
  const bool mine = turn_ == Turn::kMine || (turn_ == Turn::kAsking && rank_ < asker);
  if (!mine) turn_ = Turn::kOthers;
  static constexpr char kYes = 'y', kNo = 'n';
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Isend(mine ? &kNo : &kYes, 1, MPI_BYTE, asker, kGiveTurn, MPI_COMM_WORLD, &request),
        "MPI_Isend");
  MPI_Request_free(&request);
}

// Every rank is asked, also those in good order: who has given the turn away stays silent when it
// fails afterwards. Of two that ask, the lower rank does not give way.
bool Engine::is_my_turn() {
  if (turn_ == Turn::kOthers) return false;
  turn_ = Turn::kAsking;
  for (int r = 0; r < size_; ++r) {
    if (r == rank_) continue;
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Isend(nullptr, 0, MPI_BYTE, r, kAskTurn, MPI_COMM_WORLD, &request), "MPI_Isend");
    MPI_Request_free(&request);
  }
  const auto end = Clock::now() + kAnswerTime;
  for (int missing = size_ - 1; missing > 0 && Clock::now() < end;) {
    answer_questions();
    if (turn_ == Turn::kOthers) return false;
    int found = 0;
    MPI_Status status;
    check(MPI_Iprobe(MPI_ANY_SOURCE, kGiveTurn, MPI_COMM_WORLD, &found, &status), "MPI_Iprobe");
    if (found == 0) {
      usleep(1000);
      continue;
    }
    char answer = 0;
    MPI_Recv(&answer, 1, MPI_BYTE, status.MPI_SOURCE, kGiveTurn, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    --missing;
    if (answer == 'n') {
      turn_ = Turn::kOthers;
      return false;
    }
  }
  turn_ = Turn::kMine;
  return true;
}

void Engine::answer_questions() {
  send_notes();
  take_letters();
  take_endings();
  drain_ended_groups();
  while (const auto asker = take_question(kAskTurn)) answer_turn(*asker);
  while (const auto asker = take_question(kQuestion)) {
    // Short enough to be sent at once; kept, because nothing waits for it.
    static std::list<std::string> answers;
    answers.push_back(padded(newest_.words(), kWords));
    if (answers.size() > 1000) answers.pop_front();
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Isend(answers.back().data(), kWords, MPI_BYTE, *asker, kAnswer, MPI_COMM_WORLD,
                    &request),
          "MPI_Isend");
    MPI_Request_free(&request);
  }
}

// Asks the whole launch: members of the group may themselves wait for a rank outside of it.
std::string Engine::ask_the_missing(const Job& job) {
  std::vector<std::string> answers(size_);
  for (int r = 0; r < size_; ++r) {
    if (r == rank_) continue;
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Isend(nullptr, 0, MPI_BYTE, r, kQuestion, MPI_COMM_WORLD, &request);
    MPI_Request_free(&request);
  }
  int missing = size_ - 1;
  const auto end = Clock::now() + kAnswerTime;
  while (missing > 0 && Clock::now() < end) {
    obey_abort();
    answer_questions();
    int found = 0;
    MPI_Status status;
    MPI_Iprobe(MPI_ANY_SOURCE, kAnswer, MPI_COMM_WORLD, &found, &status);
    if (found == 0) {
      usleep(1000);
      continue;
    }
    std::string words(kWords, '\0');
    MPI_Recv(words.data(), kWords, MPI_BYTE, status.MPI_SOURCE, kAnswer, MPI_COMM_WORLD,
             MPI_STATUS_IGNORE);
    answers[status.MPI_SOURCE] = unpadded(words);
    --missing;
  }
  const std::string here = unpadded(padded(newest_.words(), kWords));
  const std::vector<int>& members = job.group->world_ranks;
  std::vector<std::string> parts;
  for (int r = 0; r < size_; ++r) {
    if (r == rank_) continue;
    // Members that wait here, and other ranks that wait elsewhere, are not missing.
    const bool waits = std::find(members.begin(), members.end(), r) != members.end()
                           ? answers[r] == here
                           : answers[r].starts_with(Progress::kIsIn);
    if (waits) continue;
    parts.push_back(
        fmt::format("rank {} {}", r, answers[r].empty() ? "does not answer" : answers[r]));
  }
  if (parts.empty()) parts.emplace_back("all ranks are in it: the network is slow or broken");
  return fmt::format("rank {} has waited {:g} s in call {}, {}: {}", rank_, deadline_s(),
                     job.number, job.description, fmt::join(parts, "; "));
}

}  // namespace varscale::comm::mpi
