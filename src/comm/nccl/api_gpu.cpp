// The table over NCCL and CUDA: collectives on a stream of their own, ordered by events.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include <algorithm>

#include "comm/nccl/api.hpp"

namespace varscale::comm::nccl {

namespace {

void check(ncclResult_t result, const char* call) {
  if (result != ncclSuccess && result != ncclInProgress)
    throw CommError(fmt::format("{}: {}", call, ncclGetErrorString(result)));
}

ncclComm_t comm_of(Api::Handle handle) { return static_cast<ncclComm_t>(handle); }

ncclDataType_t reducible(at::ScalarType type) {
  return type == at::kFloat ? ncclFloat32 : type == at::kDouble ? ncclFloat64 : ncclInt64;
}

ncclRedOp_t nccl_op(Reduce op) {
  return op == Reduce::kSum ? ncclSum : op == Reduce::kMin ? ncclMin : ncclMax;
}

class EventMark final : public Mark {
 public:
  explicit EventMark(const c10::cuda::CUDAStream& stream) { event_.record(stream); }
  bool passed() override { return event_.query(); }
  void hold_caller() override { event_.block(c10::cuda::getCurrentCUDAStream()); }

 private:
  at::cuda::CUDAEvent event_;
};

// Makes the rank's own device the current one: two ranks of a node must not share one unnoticed.
c10::cuda::CUDAStream stream_of_this_rank() {
  c10::cuda::set_device(
      static_cast<c10::DeviceIndex>(local_rank() % c10::cuda::device_count_ensure_non_zero()));
  return c10::cuda::getStreamFromPool(/*isHighPriority=*/true);
}

class CudaApi final : public Api {
 public:
  CudaApi() : stream_(stream_of_this_rank()) {}

  std::string unique_id() override {
    ncclUniqueId id{};
    check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    return {id.internal, sizeof(id.internal)};
  }
  Handle init(const std::string& bytes, int size, int rank) override {
    ncclUniqueId id{};
    std::copy(bytes.begin(), bytes.end(), id.internal);
    ncclComm_t comm = nullptr;
    check(ncclCommInitRank(&comm, size, id, rank), "ncclCommInitRank");
    return comm;
  }
  void destroy(Handle handle) noexcept override { ncclCommDestroy(comm_of(handle)); }
  void abort(Handle handle) noexcept override { ncclCommAbort(comm_of(handle)); }
  std::optional<std::string> async_error(Handle handle) override {
    ncclResult_t error = ncclSuccess;
    check(ncclCommGetAsyncError(comm_of(handle), &error), "ncclCommGetAsyncError");
    if (error == ncclSuccess || error == ncclInProgress) return std::nullopt;
    return std::string(ncclGetErrorString(error));
  }

  void group_begin() override { check(ncclGroupStart(), "ncclGroupStart"); }
  void group_end() override { check(ncclGroupEnd(), "ncclGroupEnd"); }
  void all_reduce(Handle handle, const Tensor& inout_P, Reduce op) override {
    check(ncclAllReduce(inout_P.data_ptr(), inout_P.data_ptr(),
                        static_cast<size_t>(inout_P.numel()), reducible(inout_P.scalar_type()),
                        nccl_op(op), comm_of(handle), stream_.stream()),
          "ncclAllReduce");
  }
  void reduce_scatter(Handle handle, const Tensor& out_P, const Tensor& in_RP,
                      Reduce op) override {
    check(ncclReduceScatter(in_RP.data_ptr(), out_P.data_ptr(),
                            static_cast<size_t>(out_P.numel()), reducible(in_RP.scalar_type()),
                            nccl_op(op), comm_of(handle), stream_.stream()),
          "ncclReduceScatter");
  }
  void all_gather(Handle handle, const Tensor& out_RP, const Tensor& in_P) override {
    check(ncclAllGather(in_P.data_ptr(), out_RP.data_ptr(), in_P.nbytes(), ncclUint8,
                        comm_of(handle), stream_.stream()),
          "ncclAllGather");
  }
  void broadcast(Handle handle, const Tensor& inout_P, int root) override {
    check(ncclBroadcast(inout_P.data_ptr(), inout_P.data_ptr(), inout_P.nbytes(), ncclUint8, root,
                        comm_of(handle), stream_.stream()),
          "ncclBroadcast");
  }

  void follow_caller(const c10::Event* after) override {
    if (after != nullptr) {
      after->block(stream_.unwrap());
      return;
    }
    at::cuda::CUDAEvent ready;
    ready.record(c10::cuda::getCurrentCUDAStream());
    ready.block(stream_);
  }
  std::unique_ptr<Mark> mark() override { return std::make_unique<EventMark>(stream_); }

 private:
  c10::cuda::CUDAStream stream_;
};

}  // namespace

std::shared_ptr<Api> cuda_api() { return std::make_shared<CudaApi>(); }

}  // namespace varscale::comm::nccl
