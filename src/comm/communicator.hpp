// Collectives on tensors between the ranks of one group. Size 1 is a normal group.
//
//   auto world = comm::open_world();  // MPI if launched by it, otherwise a group of one
//   Work w = world->all_reduce(grad_P, Reduce::kSum, "gradients");
//   run_more_backward();                          // overlaps
//   w.wait();                                     // from here on grad_P holds the sum
//
// Kinds    Self (size 1), Thread (comm/thread_group.hpp), Mpi (CPU tensors; a thread of its own does
//          the communication), Nccl (CUDA tensors; CPU tensors go to its control group).
// Order    All ranks make the same calls in the same order, over all groups of a process; one call at
//          a time per rank, from any thread. Every call has a number and a description: where the
//          ranks' differ, every rank throws both. Groups of their own (create_group with a number) have
//          each an order of its own; a rank is at work in one of them at a time.
// Streams  A call follows the work queued on the caller's current stream, or the event `after`.
//          wait() makes the stream current at wait() follow the call; on the CPU it blocks.
// Memory   The caller owns the tensors: contiguous, untouched before wait(). Work keeps them alive. No
//          overlap, except all_gather's input as this rank's own row of the output.
// Sums     Are taken in rank order, element by element, whatever the tensor's size (Nccl: in an order
//          of its own, the same in equal layouts).
// Errors   Bad arguments throw InvariantError before anything is sent. CommError: the ranks' calls
//          differ (Nccl: found out by the next call of its control group), a rank has not joined by the
//          deadline, or the library failed; then the group is dead and every call and wait() throws that
//          error. An error of one rank alone leaves the others in a collective that it will never join:
//          share it with agree() where all ranks come by, end a group of its own with end_group(), or
//          the launch with abort(). Programs run their work in end_together(), which does so.
// Legend   P flat elements, R ranks.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace varscale::comm {

using at::Tensor;

class CommError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A member has ended the group by end_group(): what it said. Other groups go on.
class GroupEnded : public CommError {
 public:
  using CommError::CommError;
};

// What agree() throws is also of this type: every rank of the group throws the same.
class Agreed {
 public:
  virtual ~Agreed() = default;
};

enum class Reduce { kSum, kMin, kMax };  // no mean: divide a sum by the global count

// A call under way. Dropped without wait(): it is waited for; dropped by an exception that passes:
// it is left alone, and its tensors with it.
class [[nodiscard]] Work {
 public:
  struct State {  // one per back end
    virtual ~State() = default;
    virtual void wait() = 0;
    virtual void leave() noexcept {}  // nobody will wait
  };
  explicit Work(std::unique_ptr<State> state) noexcept
      : state_(std::move(state)), exceptions_(std::uncaught_exceptions()) {}
  Work(Work&&) noexcept = default;
  Work& operator=(Work&& other) noexcept;
  ~Work();
  void wait();  // again: no effect
  bool done() const noexcept { return state_ == nullptr; }  // nothing is left to wait for

 private:
  std::unique_ptr<State> state_;  // empty: already complete
  int exceptions_ = 0;
};

// One tensor of a grouped all_gather: in_P of every rank becomes its row of out_RP.
struct Gather {
  Tensor out_RP, in_P;
};

// One tensor of a grouped reduce_scatter: out_P becomes this rank's row of the reduced in_RP.
struct Scatter {
  Tensor out_P, in_RP;
};

struct Call;  // comm/call.hpp
class Post;   // comm/post.hpp

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;

  // float32, float64 or int64, in place.
  Work all_reduce(Tensor inout_P, Reduce op, std::string_view tag,
                  const c10::Event* after = nullptr);
  // out_P: this rank's row of the reduced in_RP. float32, float64 or int64.
  Work reduce_scatter(Tensor out_P, Tensor in_RP, Reduce op, std::string_view tag,
                      const c10::Event* after = nullptr);
  Work reduce_scatter(std::vector<Scatter> parts, Reduce op, std::string_view tag,
                      const c10::Event* after = nullptr);
  // Any dtype; the parts may differ in dtype and size and travel as one call.
  Work all_gather(Tensor out_RP, Tensor in_P, std::string_view tag,
                  const c10::Event* after = nullptr);
  Work all_gather(std::vector<Gather> parts, std::string_view tag,
                  const c10::Event* after = nullptr);
  Work broadcast(Tensor inout_P, int root, std::string_view tag,
                 const c10::Event* after = nullptr);  // any dtype
  void barrier(std::string_view tag);  // of the hosts: says nothing of streams

  // A group of some ranks of this one, in the order given; called by its members alone. It must not
  // outlive this one. `own` > 0 makes it a group of its own, as the groups made from it are: its members
  // pass the same number, and no other group of the launch has or had it.
  virtual std::unique_ptr<Communicator> create_group(const std::vector<int>& ranks,
                                                     std::string_view tag, int64_t own = 0) = 0;
  // Ends this group of its own, whatever its members do just now: each call and wait() of any member
  // throws GroupEnded. Any thread.
  virtual void end_group(std::string_view why) noexcept { static_cast<void>(why); }
  // What was said as this group was ended. Any thread.
  virtual std::optional<std::string> ended() { return std::nullopt; }
  // The letters of this launch (comm/post.hpp); null for kinds without.
  virtual std::shared_ptr<Post> post() { return nullptr; }
  // How long a call may wait for the other ranks, from now on and in groups made from now on.
  virtual void set_deadline(double seconds) = 0;
  // Says why on stderr and ends every rank of the launch with this exit code. Where several ranks do so,
  // one speaks: the first, or the lowest of those that come together. Kinds without a launch kill their
  // group instead: every call and wait() of any rank throws CommError. Any thread.
  virtual void abort(std::string_view why, int exit_code) noexcept = 0;

  // The root's bytes on every rank.
  std::string broadcast_bytes(std::string bytes, int root, std::string_view tag);
  // Throws on every rank if any rank passed a sentence: the lowest rank's, as UserError if `user`
  // there, and always as Agreed.
  void agree(const std::string& sentence, bool user, std::string_view tag);

 protected:
  // What a kind does with a call whose arguments have been checked.
  virtual Work start(Call call) = 0;
};

// Runs `body`, which communicates nothing, and lets every rank throw if it failed on any: see agree().
template <class Body>
void agree_on(Communicator& world, std::string_view tag, const Body& body) {
  std::string failure;
  bool user = false;
  try {
    body();
  } catch (const base::UserError& error) {
    failure = error.what();
    user = true;
  } catch (const std::exception& error) {
    failure = error.what();
  }
  world.agree(failure, user, tag);
}

// Runs a program's work with every rank of `world`; what a rank throws ends the whole launch with one
// sentence and one exit code. Agreed errors every rank has: the first rank throws them on to who prints
// them, the others return their code. After an error of this rank alone, CommError too, the others wait
// in a call that it will not join: abort(). UserError: code 2; all else: 1.
base::ExitCode end_together(Communicator& world, const std::function<base::ExitCode()>& body);

// A group of one: every call is complete at once.
std::unique_ptr<Communicator> make_self();

// The group of this launch. MPI is initialised (once a process) if mpirun or srun started it, and
// finalised when the returned object dies; if the group died before, the process ends there with exit
// code 1. UserError: the launcher announced N > 1 ranks but MPI reports 1 (a program built with another
// MPI than the launcher's).
std::unique_ptr<Communicator> open_world();

// The same ranks with CUDA tensors going over NCCL and CPU tensors over `control`, which must
// outlive it. Collective. Makes cuda_device() the current one of this thread. UserError, on every rank,
// in a build without the GPU parts or where a rank sees no device.
std::unique_ptr<Communicator> open_nccl(Communicator& control);

// This process's number on its node, from the launcher's environment; 0 without a launcher.
int local_rank();

// The CUDA device of this rank: the one of number local_rank(), modulo those that the process sees: a single
// one, where Slurm gives each task its own. UserError as open_nccl().
at::Device cuda_device();

}  // namespace varscale::comm
