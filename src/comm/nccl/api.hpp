// What the Nccl kind needs of NCCL and of CUDA streams, as a table of functions: tests put a fake in
// its place, so that the logic above it runs without a GPU.
//
// All collectives of one table go to one stream of high priority. Nothing here blocks but destroy() and
// abort(): calls on a handle return at once, and status() says when they have reached the stream; until
// then no other call may be made on any handle, and no mark. One thread at a time. Errors: CommError with
// the library's words.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "comm/communicator.hpp"

namespace varscale::comm::nccl {

// A point in the communication stream. Any thread.
class Mark {
 public:
  virtual ~Mark() = default;
  virtual bool passed() = 0;       // does not block
  virtual void hold_caller() = 0;  // the caller's current stream goes on after it
};

struct Status {
  bool busy = false;  // the last call on the handle has not reached the stream
  std::optional<std::string> error = {};
};

class Api {
 public:
  using Handle = void*;
  virtual ~Api() = default;

  // Makes this rank's device the thread's: once in every thread that calls the others.
  virtual void enter_thread() = 0;

  virtual std::string unique_id() = 0;
  virtual Handle init(const std::string& id, int size, int rank) = 0;
  virtual Status status(Handle handle) = 0;
  // Collective; nothing of the handle is under way. Gives the other ranks this long, then aborts.
  virtual void destroy(Handle handle, double deadline_s) noexcept = 0;
  // Ends what is under way; what it would have written is undefined. No thread may be in another call.
  virtual void abort(Handle handle) noexcept = 0;

  virtual void group_begin() = 0;
  virtual void group_end() = 0;
  virtual void all_reduce(Handle handle, const Tensor& inout_P, Reduce op) = 0;
  virtual void reduce_scatter(Handle handle, const Tensor& out_P, const Tensor& in_RP,
                              Reduce op) = 0;
  virtual void all_gather(Handle handle, const Tensor& out_RP, const Tensor& in_P) = 0;
  virtual void broadcast(Handle handle, const Tensor& inout_P, int root) = 0;

  // What follows on the communication stream waits for the caller's current stream, or for `after`.
  virtual void follow_caller(const c10::Event* after) = 0;
  virtual std::unique_ptr<Mark> mark() = 0;
};

// The real one, of this rank's device; in a build without the GPU parts UserError.
std::shared_ptr<Api> cuda_api();

// The device of the rank of that number on its node: ranks take turns on the devices they see, which may
// be a single one of their own. UserError where there is none.
int device_index(int local_rank, int devices);

// The ranks of `control`, with CUDA tensors over the table.
struct GroupOptions {
  double deadline_s = 600;
  // After a failure that no thread has come to hear of, this long until the launch is ended.
  double grace_s = 60;
  bool all_tensors = false;  // for tests: CPU tensors go over the table too
};
std::unique_ptr<Communicator> make_group(Communicator& control, std::shared_ptr<Api> api,
                                         const GroupOptions& options = {});

}  // namespace varscale::comm::nccl
