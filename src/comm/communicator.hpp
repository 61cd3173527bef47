// Collectives on tensors between the ranks of one group. Size 1 is a normal group.
//
//   auto world = comm::open_world();  // MPI if launched by it, otherwise a group of one
//   Work w = world->all_reduce(grad_P, Reduce::kSum, "gradients");
//   w.wait();                                     // from here on grad_P holds the sum
//
// Order    All ranks make the same calls in the same order, one thread per rank.
// Memory   The caller owns the tensors: contiguous, untouched before wait(). Work keeps them alive.
// Errors   Bad arguments throw InvariantError before anything is sent. CommError: the library
//          failed; then the group is dead. An error of one rank alone leaves the others in a
//          collective that it will never join: share it with agree() where all ranks come by, or
//          end them with abort().
// Legend   P flat elements, R ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
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

// What agree() throws is also of this type: every rank of the group throws the same.
class Agreed {
 public:
  virtual ~Agreed() = default;
};

enum class Reduce { kSum, kMin, kMax };  // no mean: divide a sum by the global count

class [[nodiscard]] Work {
 public:
  struct State {  // one per back end
    virtual ~State() = default;
    virtual void wait() = 0;
  };
  explicit Work(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
  void wait() {  // again: no effect
    if (state_) state_->wait();
    state_.reset();
  }

 private:
  std::unique_ptr<State> state_;  // empty: already complete
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;
  // float32, float64 or int64, contiguous, in place. The order of additions depends on the size of
  // the group and of the tensor alone, so equal layouts give equal bits.
  virtual Work all_reduce(Tensor inout_P, Reduce op, std::string_view tag) = 0;
  virtual Work broadcast(Tensor inout_P, int root, std::string_view tag) = 0;  // any dtype
  virtual void barrier(std::string_view tag) = 0;
  // Says why on stderr and ends every rank of the launch with this exit code. Returns where there
  // are no others.
  virtual void abort(std::string_view why, int exit_code) noexcept = 0;

  // The root's bytes on every rank.
  std::string broadcast_bytes(std::string bytes, int root, std::string_view tag);
  // Throws on every rank if any rank passed a sentence: the lowest rank's, as UserError if `user`
  // there, and always as Agreed.
  void agree(const std::string& sentence, bool user, std::string_view tag);

 protected:
  // What every kind asks of its arguments.
  void check_all_reduce(const Tensor& inout_P, std::string_view tag) const;
  void check_broadcast(const Tensor& inout_P, int root, std::string_view tag) const;
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

// A group of one: every call is complete at once.
std::unique_ptr<Communicator> make_self();

// The group of this launch. MPI is initialised (once a process) if mpirun or srun started it, and
// finalised when the returned object dies. UserError: the launcher announced N > 1 ranks but MPI
// reports 1 (a program built with another MPI than the launcher's).
std::unique_ptr<Communicator> open_world();

// The same ranks with CUDA tensors going over NCCL and CPU tensors over `control`, which must
// outlive it. Collective. Makes the CUDA device of number local_rank() the current one. UserError
// in a build without the GPU parts.
std::unique_ptr<Communicator> open_nccl(Communicator& control);

// This process's number on its node, from the launcher's environment; 0 without a launcher.
int local_rank();

}  // namespace varscale::comm
