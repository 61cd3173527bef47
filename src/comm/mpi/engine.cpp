#include "comm/mpi/engine.hpp"

#include <ATen/ATen.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "comm/mpi/wire.hpp"

namespace varscale::comm::mpi {

namespace {

// What a small all_reduce or all_gather brings along when the ranks meet.
constexpr size_t kPayload = 112;
constexpr int64_t kSlice = int64_t{1} << 30;  // MPI counts are ints: bytes of one message

Clock::duration seconds(double s) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
}

std::byte* bytes_of(const Tensor& tensor) { return static_cast<std::byte*>(tensor.data_ptr()); }

// Yields at first, for short waits; then sleeps, so that compute threads have the cores.
class Backoff {
 public:
  void pause() {
    if (++turns_ < 200)
      sched_yield();
    else
      usleep(20);
  }
  bool tenth() const { return turns_ % 10 == 0; }

 private:
  int turns_ = 0;
};

}  // namespace

void Failure::raise() const {
  if (group_alone) throw GroupEnded(why);
  throw CommError(why);
}

void Ticket::finish(std::optional<Failure> failure) {
  const std::scoped_lock lock(mutex_);
  failure_ = std::move(failure);
  done_ = true;
  changed_.notify_all();
}

void Ticket::wait() {
  for (int turn = 0; turn < 50 && !done_; ++turn) sched_yield();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return done_.load(); });
  if (failure_) failure_->raise();
}

// Messages under way between this rank and others of the group; all must end before complete().
class Engine::Messages {
 public:
  Messages(Engine& engine, const Job& job) : engine_(engine), job_(job) {}

  void send(int to, const void* data, int64_t bytes, Part part) {
    for (int64_t begin = 0; begin < bytes; begin += kSlice) {
      check(MPI_Isend(static_cast<const std::byte*>(data) + begin,
                      static_cast<int>(std::min(kSlice, bytes - begin)), MPI_BYTE,
                      job_.group->world_ranks[to], tag_of(job_.group->own, part), MPI_COMM_WORLD,
                      &requests_.emplace_back()),
            "MPI_Isend");
    }
  }

  void receive(int from, void* data, int64_t bytes, Part part) {
    for (int64_t begin = 0; begin < bytes; begin += kSlice) {
      check(
          MPI_Irecv(static_cast<std::byte*>(data) + begin,
                    static_cast<int>(std::min(kSlice, bytes - begin)), MPI_BYTE,
                    job_.group->world_ranks[from], tag_of(job_.group->own, part), MPI_COMM_WORLD,
                    &requests_.emplace_back()),
          "MPI_Irecv");
      receives_.push_back(requests_.size() - 1);
    }
  }

  void complete() {
    const auto deadline = Clock::now() + seconds(engine_.deadline_s());
    Backoff backoff;
    for (;;) {
      int done = 0;
      check(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done,
                        MPI_STATUSES_IGNORE),
            "MPI_Testall");
      if (done != 0) break;
      engine_.obey_abort();
      if (backoff.tenth()) {
        engine_.answer_questions();
        if (engine_.ended(*job_.group)) {
          take_back();
          engine_.throw_if_ended(*job_.group);
        }
      }
      if (Clock::now() > deadline) throw CommError(engine_.ask_the_missing(job_));
      backoff.pause();
    }
    requests_.clear();
    receives_.clear();
  }

 private:
  // Ends what is under way in a group that has ended, so that its memory is free: receives are cancelled;
  // what was sent the others take in and throw away, as this rank does with theirs.
  void take_back() {
    for (const size_t i : receives_)
      if (requests_[i] != MPI_REQUEST_NULL) check(MPI_Cancel(&requests_[i]), "MPI_Cancel");
    const auto deadline = Clock::now() + seconds(engine_.deadline_s());
    for (int done = 0;;) {
      check(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done,
                        MPI_STATUSES_IGNORE),
            "MPI_Testall");
      if (done != 0) break;
      engine_.obey_abort();
      engine_.answer_questions();
      if (Clock::now() > deadline) throw CommError(engine_.ask_the_missing(job_));
      usleep(100);
    }
  }

  Engine& engine_;
  const Job& job_;
  std::vector<MPI_Request> requests_;
  std::vector<size_t> receives_;  // which of them
};

Engine::Engine() {
  thread_ = std::thread([this] { loop(); });
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return started_; });
  if (failure_) {
    lock.unlock();
    thread_.join();
    throw CommError(*failure_);
  }
}

Engine::~Engine() {
  bool failed = false;
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
    failed = failure_.has_value();
    changed_.notify_all();
  }
  if (failed) {  // messages are still posted: MPI could not be finalised
    std::fflush(stdout);
    _exit(static_cast<int>(base::ExitCode::kFailure));
  }
  thread_.join();
}

std::shared_ptr<Ticket> Engine::submit(const std::shared_ptr<Group>& group, Call call) {
  auto ticket = std::make_shared<Ticket>();
  const std::scoped_lock lock(mutex_);
  if (failure_) throw CommError(*failure_);
  if (const auto found = ended_.find(group->own); found != ended_.end()) throw GroupEnded(found->second.why);
  std::string description = call.describe();
  jobs_.push_back({group, ++group->number, std::move(description), std::move(call), ticket});
  ++queued_;
  changed_.notify_all();
  return ticket;
}

void Engine::set_deadline(double seconds) {
  const std::scoped_lock lock(mutex_);
  deadline_s_ = seconds;
}

double Engine::deadline_s() {
  const std::scoped_lock lock(mutex_);
  return deadline_s_;
}

bool Engine::next_job(Job& job) {
  for (int turn = 0; turn < 50 && queued_ == 0; ++turn) sched_yield();
  std::unique_lock lock(mutex_);
  for (;;) {
    if (!jobs_.empty()) {
      job = std::move(jobs_.front());
      jobs_.pop_front();
      --queued_;
      return true;
    }
    if (stop_) return false;
    // Letters are waited for, or a rank may ask. Where one has come or gone an answer is near.
    using namespace std::chrono_literals;
    const bool answer_near = std::chrono::steady_clock::now() - last_letter_.load() < 20ms;
    const std::chrono::microseconds pause = takers_ == 0 ? 100ms : answer_near ? 100us : 1ms;
    const bool job_came = changed_.wait_for(lock, pause, [this] {
      return stop_ || !jobs_.empty() || !notes_.empty() || abort_.has_value();
    }) && !jobs_.empty();
    lock.unlock();
    obey_abort();
    if (!job_came) answer_questions();
    lock.lock();
  }
}

void Engine::loop() {
  std::optional<std::string> failure;
  try {
    int provided = 0;
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
  } catch (const CommError& error) {
    failure = error.what();
  }
  {
    const std::scoped_lock lock(mutex_);
    failure_ = failure;
    started_ = true;
    changed_.notify_all();
  }
  if (failure) return;
  Job job;
  while (next_job(job)) {
    std::optional<Failure> of_job;
    if (!failure) {
      newest_ = {job.number, false, job.description};
      try {
        run(job);
        newest_.done = true;
      } catch (const GroupEnded& ended) {
        newest_.done = true;
        of_job = {ended.what(), true};
      } catch (const std::exception& error) {
        failure = error.what();
        const std::scoped_lock lock(mutex_);
        failure_ = failure;
      }
    }
    if (failure) {
      letters_.close();
      of_job = {*failure, false};
      new Call(std::move(job.call));  // its tensors stay where MPI may still write to them
    }
    job.ticket->finish(std::move(of_job));
    job = {};
  }
  if (!failure) MPI_Finalize();
}

void Engine::run(const Job& job) {
  throw_if_ended(*job.group);
  switch (job.call.kind) {
    case Call::Kind::kBarrier:
      meet(job, {});
      return;
    case Call::Kind::kAllReduce:
      return all_reduce(job);
    case Call::Kind::kReduceScatter:
      return reduce_scatter(job);
    case Call::Kind::kAllGather:
      return all_gather(job);
    case Call::Kind::kBroadcast:
      return broadcast(job);
  }
}

// Bruck's algorithm: the number of rounds is the logarithm of the number of ranks.
std::vector<std::string> Engine::all_records(const Job& job, const std::string& mine) {
  const int n = job.group->size(), rank = job.group->rank;
  const auto length = static_cast<int64_t>(mine.size());
  std::string blocks = mine;  // block i is of rank (rank + i) mod n
  blocks.resize(mine.size() * static_cast<size_t>(n));
  for (int have = 1; have < n; have *= 2) {
    const int count = std::min(have, n - have);
    Messages messages(*this, job);
    messages.receive((rank + have) % n, blocks.data() + have * length, count * length, Part::kMeet);
    messages.send((rank - have + n) % n, blocks.data(), count * length, Part::kMeet);
    messages.complete();
  }
  std::vector<std::string> records(n);
  for (int i = 0; i < n; ++i)
    records[(rank + i) % n] = blocks.substr(static_cast<size_t>(i) * mine.size(), mine.size());
  return records;
}

std::vector<std::string> Engine::meet(const Job& job, std::string_view payload) {
  const uint64_t hash = call_hash(job.number, job.description);
  std::string record(reinterpret_cast<const char*>(&hash), sizeof(hash));
  record += padded(payload, kPayload);
  std::vector<std::string> records = all_records(job, record);
  const bool same = std::all_of(records.begin(), records.end(), [&](const std::string& other) {
    return other.compare(0, sizeof(hash), records[0], 0, sizeof(hash)) == 0;
  });
  if (!same) {
    std::vector<std::string> descriptions;
    for (const std::string& words : all_records(job, padded(job.description, kWords)))
      descriptions.push_back(unpadded(words));
    throw CommError(mismatch_message(job.number, descriptions, job.group->world_ranks));
  }
  for (std::string& other : records) other.erase(0, sizeof(hash));
  return records;
}

void Engine::reduce_row(const Job& job, const std::vector<const std::byte*>& rows,
                        const std::vector<int64_t>& row_elements, std::byte* out,
                        at::ScalarType type) {
  const int n = job.group->size(), rank = job.group->rank;
  const auto element = static_cast<int64_t>(at::elementSize(type));
  const int64_t mine = row_elements[rank] * element;
  if (static_cast<int64_t>(scratch_.size()) < mine * (n - 1)) scratch_.resize(mine * (n - 1));
  std::vector<const void*> parts(n);
  parts[rank] = rows[rank];
  for (int k = 1; k < n; ++k) {
    const int to = (rank + k) % n, from = (rank - k + n) % n;
    std::byte* place = scratch_.data() + (k - 1) * mine;
    parts[from] = place;
    Messages messages(*this, job);
    messages.receive(from, place, mine, Part::kData);
    messages.send(to, rows[to], row_elements[to] * element, Part::kData);
    messages.complete();
  }
  reduce_rows(out, parts, row_elements[rank], type, job.call.op);
}

void Engine::all_reduce(const Job& job) {
  const Tensor& tensor = job.call.out[0];
  const int n = job.group->size(), rank = job.group->rank;
  const at::ScalarType type = tensor.scalar_type();
  std::byte* data = bytes_of(tensor);
  if (tensor.nbytes() <= kPayload) {  // the meeting brings it along
    const auto records =
        meet(job, {reinterpret_cast<const char*>(data), static_cast<size_t>(tensor.nbytes())});
    std::vector<const void*> rows;
    for (const std::string& record : records) rows.push_back(record.data());
    reduce_rows(data, rows, tensor.numel(), type, job.call.op);
    return;
  }
  meet(job, {});
  // Each rank sums its part of the tensor, then all send theirs to all.
  const auto element = static_cast<int64_t>(tensor.element_size());
  const int64_t part = (tensor.numel() + n - 1) / n;
  std::vector<const std::byte*> rows;
  std::vector<int64_t> elements;
  for (int r = 0; r < n; ++r) {
    const int64_t begin = std::min(tensor.numel(), r * part);
    elements.push_back(std::min(tensor.numel(), begin + part) - begin);
    rows.push_back(data + begin * element);
  }
  std::byte* mine = data + std::min(tensor.numel(), rank * part) * element;
  reduce_row(job, rows, elements, mine, type);
  for (int k = 1; k < n; ++k) {
    const int to = (rank + k) % n, from = (rank - k + n) % n;
    Messages messages(*this, job);
    messages.receive(from, data + (rows[from] - data), elements[from] * element, Part::kData);
    messages.send(to, mine, elements[rank] * element, Part::kData);
    messages.complete();
  }
}

void Engine::reduce_scatter(const Job& job) {
  meet(job, {});
  for (size_t part = 0; part < job.call.in.size(); ++part) {
    const Tensor &in = job.call.in[part], &out = job.call.out[part];
    std::vector<const std::byte*> rows;
    for (int r = 0; r < job.group->size(); ++r)
      rows.push_back(bytes_of(in) + r * static_cast<int64_t>(out.nbytes()));
    reduce_row(job, rows, std::vector<int64_t>(rows.size(), out.numel()), bytes_of(out),
               in.scalar_type());
  }
}

void Engine::all_gather(const Job& job) {
  const int n = job.group->size(), rank = job.group->rank;
  if (job.call.in.size() == 1 &&
      job.call.in[0].nbytes() <= kPayload) {  // the meeting brings it along
    const size_t bytes = job.call.in[0].nbytes();
    const auto records =
        meet(job, {reinterpret_cast<const char*>(bytes_of(job.call.in[0])), bytes});
    for (int r = 0; r < n; ++r)
      std::memcpy(bytes_of(job.call.out[0]) + r * bytes, records[r].data(), bytes);
    return;
  }
  meet(job, {});
  for (size_t part = 0; part < job.call.in.size(); ++part) {
    const Tensor& in = job.call.in[part];
    const auto bytes = static_cast<int64_t>(in.nbytes());
    std::byte* rows = bytes_of(job.call.out[part]);
    if (rows + rank * bytes != bytes_of(in)) std::memcpy(rows + rank * bytes, bytes_of(in), bytes);
    for (int k = 1; k < n; ++k) {
      const int to = (rank + k) % n, from = (rank - k + n) % n;
      Messages messages(*this, job);
      messages.receive(from, rows + from * bytes, bytes, Part::kData);
      messages.send(to, bytes_of(in), bytes, Part::kData);
      messages.complete();
    }
  }
}

// A binomial tree below the root.
void Engine::broadcast(const Job& job) {
  meet(job, {});
  const int n = job.group->size(), place = (job.group->rank - job.call.root + n) % n;
  const auto bytes = static_cast<int64_t>(job.call.out[0].nbytes());
  std::byte* data = bytes_of(job.call.out[0]);
  auto rank_at = [&](int at) { return (at + job.call.root) % n; };
  int reach = 1;  // places below have the data before this round
  for (; reach < n; reach *= 2) {
    Messages messages(*this, job);
    if (place < reach && place + reach < n)
      messages.send(rank_at(place + reach), data, bytes, Part::kData);
    if (place >= reach && place < 2 * reach)
      messages.receive(rank_at(place - reach), data, bytes, Part::kData);
    messages.complete();
  }
}

}  // namespace varscale::comm::mpi
