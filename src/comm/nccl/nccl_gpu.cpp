// The Nccl kind: collectives on a stream of their own, ordered after the caller's stream by events.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include <algorithm>

#include "comm/communicator.hpp"

namespace varscale::comm {

namespace {

void check(ncclResult_t result, std::string_view call, std::string_view tag) {
  if (result != ncclSuccess)
    throw CommError(fmt::format("{} ({}): {}", call, tag, ncclGetErrorString(result)));
}

ncclDataType_t datatype(at::ScalarType type, std::string_view tag) {
  switch (type) {
    case at::kFloat:
      return ncclFloat32;
    case at::kDouble:
      return ncclFloat64;
    case at::kLong:
      return ncclInt64;
    default:
      VARSCALE_CHECK(false, "{}: all_reduce takes float32, float64 or int64, not {}", tag,
                     at::toString(type));
  }
  return ncclFloat32;
}

// Complete when the event has passed; wait() lets the host go on and holds the current stream
// instead.
struct EventState final : Work::State {
  at::cuda::CUDAEvent done;
  Tensor kept;
  void wait() override { done.block(c10::cuda::getCurrentCUDAStream()); }
};

// Makes the rank's own device the current one: two ranks of a node must not share one.
c10::cuda::CUDAStream stream_of_this_rank() {
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(local_rank()));
  return c10::cuda::getStreamFromPool(/*isHighPriority=*/true);
}

class NcclWorld final : public Communicator {
 public:
  explicit NcclWorld(Communicator& control) : control_(control), stream_(stream_of_this_rank()) {
    ncclUniqueId id{};
    if (control.rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId", "start");
    const std::string bytes =
        control.broadcast_bytes({id.internal, sizeof(id.internal)}, 0, "NCCL id");
    std::copy(bytes.begin(), bytes.end(), id.internal);
    check(ncclCommInitRank(&comm_, control.size(), id, control.rank()), "ncclCommInitRank",
          "start");
  }
  ~NcclWorld() override { ncclCommDestroy(comm_); }
  int rank() const noexcept override { return control_.rank(); }
  int size() const noexcept override { return control_.size(); }

  Work all_reduce(Tensor inout_P, Reduce op, std::string_view tag) override {
    if (inout_P.is_cpu()) return control_.all_reduce(std::move(inout_P), op, tag);
    VARSCALE_CHECK(inout_P.is_contiguous(), "{}: all_reduce takes a contiguous tensor", tag);
    const ncclRedOp_t nccl_op = op == Reduce::kSum   ? ncclSum
                                : op == Reduce::kMin ? ncclMin
                                                     : ncclMax;
    follow_caller();
    check(
        ncclAllReduce(inout_P.data_ptr(), inout_P.data_ptr(), static_cast<size_t>(inout_P.numel()),
                      datatype(inout_P.scalar_type(), tag), nccl_op, comm_, stream_.stream()),
        "ncclAllReduce", tag);
    return pending(std::move(inout_P));
  }

  Work broadcast(Tensor inout_P, int root, std::string_view tag) override {
    if (inout_P.is_cpu()) return control_.broadcast(std::move(inout_P), root, tag);
    VARSCALE_CHECK(inout_P.is_contiguous(), "{}: broadcast takes a contiguous tensor", tag);
    follow_caller();
    check(ncclBroadcast(inout_P.data_ptr(), inout_P.data_ptr(), inout_P.nbytes(), ncclUint8, root,
                        comm_, stream_.stream()),
          "ncclBroadcast", tag);
    return pending(std::move(inout_P));
  }

  void barrier(std::string_view tag) override { control_.barrier(tag); }
  void abort(std::string_view why, int exit_code) noexcept override {
    control_.abort(why, exit_code);
  }

 private:
  void follow_caller() {
    at::cuda::CUDAEvent ready;
    ready.record(c10::cuda::getCurrentCUDAStream());
    ready.block(stream_);
  }
  Work pending(Tensor kept) {
    auto state = std::make_unique<EventState>();
    state->done.record(stream_);
    state->kept = std::move(kept);
    return Work(std::move(state));
  }

  Communicator& control_;
  c10::cuda::CUDAStream stream_;
  ncclComm_t comm_ = nullptr;
};

}  // namespace

std::unique_ptr<Communicator> open_nccl(Communicator& control) {
  return std::make_unique<NcclWorld>(control);
}

}  // namespace varscale::comm
