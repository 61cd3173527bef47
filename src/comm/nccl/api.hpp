// What the Nccl kind needs of NCCL and of CUDA streams, as a table of functions: tests put a fake in
// its place, so that the logic above it runs without a GPU.
//
// All collectives of one table go to one stream of high priority. Errors: CommError with the library's
// words.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "comm/communicator.hpp"

namespace varscale::comm::nccl {

// A point in the communication stream.
class Mark {
 public:
  virtual ~Mark() = default;
  virtual bool passed() = 0;          // does not block
  virtual void hold_caller() = 0;     // the caller's current stream goes on after it
};

class Api {
 public:
  using Handle = void*;
  virtual ~Api() = default;

  virtual std::string unique_id() = 0;
  virtual Handle init(const std::string& id, int size, int rank) = 0;
  virtual void destroy(Handle handle) noexcept = 0;
  virtual void abort(Handle handle) noexcept = 0;
  virtual std::optional<std::string> async_error(Handle handle) = 0;

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

// The ranks of `control`, with CUDA tensors over the table. `on_device`: which tensors those are; tests
// say all.
struct GroupOptions {
  double deadline_s = 600;
  bool all_tensors = false;
};
std::unique_ptr<Communicator> make_group(Communicator& control, std::shared_ptr<Api> api,
                                         const GroupOptions& options = {});

}  // namespace varscale::comm::nccl
