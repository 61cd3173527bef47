// Letters between ranks, and groups of their own that are ended.
#include <unistd.h>

#include <cstring>
#include <list>

#include "comm/mpi/engine.hpp"
#include "comm/mpi/wire.hpp"

namespace varscale::comm::mpi {

namespace {

// So long messages of an ended group are waited for and thrown away.
constexpr auto kDrainTime = std::chrono::minutes(10);

std::string as_bytes(int64_t number) {
  return {reinterpret_cast<const char*>(&number), sizeof(number)};
}

int64_t first_number(const std::string& text) {
  int64_t number = 0;
  std::memcpy(&number, text.data(), sizeof(number));
  return number;
}

// The next message with this tag from any rank, if one is there.
std::optional<Letter> take_message(int tag) {
  int found = 0, bytes = 0;
  MPI_Status status;
  check(MPI_Iprobe(MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &found, &status), "MPI_Iprobe");
  if (found == 0) return std::nullopt;
  check(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
  std::string text(static_cast<size_t>(bytes), '\0');
  check(MPI_Recv(text.data(), bytes, MPI_BYTE, status.MPI_SOURCE, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE), "MPI_Recv");
  return Letter{status.MPI_SOURCE, std::move(text)};
}

}  // namespace

void Engine::send_letter(int to, int box, std::string text) {
  VARSCALE_CHECK(to >= 0 && to < size_, "a letter to rank {} of {}", to, size_);
  const std::scoped_lock lock(mutex_);
  if (failure_) throw CommError(*failure_);
  if (to == rank_) {
    letters_.put(box, {rank_, std::move(text)});
    return;
  }
  notes_.push_back({to, kLetter, as_bytes(box) + text});
  last_letter_ = std::chrono::steady_clock::now();
  changed_.notify_all();
}

std::optional<Letter> Engine::take_letter(int box, double timeout_s) {
  {
    const std::scoped_lock lock(mutex_);
    if (failure_) throw CommError(*failure_);
    if (timeout_s > 0 && takers_++ == 0) changed_.notify_all();
  }
  auto letter = letters_.take(box, timeout_s);
  if (timeout_s > 0) --takers_;
  return letter;
}

void Engine::end_group(const Group& group, std::string_view why) {
  const std::scoped_lock lock(mutex_);
  if (group.own == 0 || !ended_.try_emplace(group.own, EndedGroup{std::string(why)}).second) return;
  for (const int r : group.world_ranks)
    if (r != rank_) notes_.push_back({r, kEnding, as_bytes(group.own) + std::string(why)});
  changed_.notify_all();
}

std::optional<std::string> Engine::ended(const Group& group) {
  const std::scoped_lock lock(mutex_);
  const auto found = ended_.find(group.own);
  return found == ended_.end() ? std::nullopt : std::optional(found->second.why);
}

void Engine::throw_if_ended(const Group& group) {
  if (const auto why = ended(group)) throw GroupEnded(*why);
}

// Notes are kept until MPI has sent them; nothing else waits for that.
void Engine::send_notes() {
  struct Sent {
    std::string text;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  static std::list<Sent> under_way;
  std::vector<Note> notes;
  {
    const std::scoped_lock lock(mutex_);
    notes.swap(notes_);
  }
  for (Note& note : notes) {
    Sent& sent = under_way.emplace_back(std::move(note.text));
    check(MPI_Isend(sent.text.data(), static_cast<int>(sent.text.size()), MPI_BYTE, note.to, note.tag, MPI_COMM_WORLD,
                    &sent.request),
          "MPI_Isend");
  }
  for (auto it = under_way.begin(); it != under_way.end();) {
    int done = 0;
    check(MPI_Test(&it->request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    it = done != 0 ? under_way.erase(it) : std::next(it);
  }
}

void Engine::take_letters() {
  while (auto letter = take_message(kLetter)) {
    last_letter_ = std::chrono::steady_clock::now();
    letters_.put(static_cast<int>(first_number(letter->text)), {letter->from, letter->text.substr(sizeof(int64_t))});
  }
}

void Engine::take_endings() {
  while (const auto ending = take_message(kEnding)) {
    const std::scoped_lock lock(mutex_);
    ended_.try_emplace(first_number(ending->text), EndedGroup{ending->text.substr(sizeof(int64_t))});
  }
}

void Engine::drain_ended_groups() {
  std::vector<int64_t> numbers;
  {
    const std::scoped_lock lock(mutex_);
    for (auto& [number, group] : ended_) {
      group.drain &= Clock::now() - group.since < kDrainTime;
      if (group.drain) numbers.push_back(number);
    }
  }
  for (const int64_t number : numbers)
    for (const Part part : {Part::kMeet, Part::kData})
      while (take_message(tag_of(number, part))) {
      }
}

}  // namespace varscale::comm::mpi
