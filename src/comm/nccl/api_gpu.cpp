// The table over NCCL and CUDA: collectives on a stream of their own, ordered by events.
//
// Communicators are of NCCL's non-blocking kind: a rank that waits for others inside NCCL, while it opens
// a communicator or connects for a first collective, could not be brought back otherwise, and NCCL wants
// no thread inside it while ncclCommAbort runs.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "comm/nccl/api.hpp"

namespace varscale::comm {

namespace nccl {

namespace {

// ncclInProgress is no error: status() tells how it ended.
void check(ncclResult_t result, const char* call) {
  if (result != ncclSuccess && result != ncclInProgress)
    throw CommError(
        fmt::format("{}: {} ({})", call, ncclGetErrorString(result), ncclGetLastError(nullptr)));
}

ncclComm_t comm_of(Api::Handle handle) { return static_cast<ncclComm_t>(handle); }

ncclDataType_t reducible(at::ScalarType type) {
  return type == at::kFloat ? ncclFloat32 : type == at::kDouble ? ncclFloat64 : ncclInt64;
}

ncclRedOp_t nccl_op(Reduce op) {
  return op == Reduce::kSum ? ncclSum : op == Reduce::kMin ? ncclMin : ncclMax;
}

// The caller's current stream on a device that need not be the thread's current one.
c10::cuda::CUDAStream stream_of_caller(c10::DeviceIndex device) {
  return c10::cuda::getCurrentCUDAStream(device);
}

class EventMark final : public Mark {
 public:
  explicit EventMark(const c10::cuda::CUDAStream& stream) { event_.record(stream); }
  bool passed() override { return event_.query(); }
  void hold_caller() override { event_.block(stream_of_caller(event_.device_index())); }

 private:
  at::cuda::CUDAEvent event_;
};

// Makes the rank's own device the current one, too: what is not told its device goes there.
c10::cuda::CUDAStream stream_of_this_rank() {
  const c10::DeviceIndex device = cuda_device().index();
  at::globalContext().lazyInitDevice(at::kCUDA);
  c10::cuda::set_device(device);
  return c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device);
}

class CudaApi final : public Api {
 public:
  CudaApi() : stream_(stream_of_this_rank()) {}

  void enter_thread() override { c10::cuda::set_device(stream_.device_index()); }

  std::string unique_id() override {
    ncclUniqueId id{};
    check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    return {id.internal, sizeof(id.internal)};
  }
  Handle init(const std::string& bytes, int size, int rank) override {
    ncclUniqueId id{};
    VARSCALE_CHECK(bytes.size() == sizeof(id.internal), "an NCCL id of {} bytes", bytes.size());
    std::copy(bytes.begin(), bytes.end(), id.internal);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t comm = nullptr;
    check(ncclCommInitRankConfig(&comm, size, id, rank, &config), "ncclCommInitRankConfig");
    return comm;
  }
  Status status(Handle handle) override {
    ncclResult_t state = ncclSuccess;
    check(ncclCommGetAsyncError(comm_of(handle), &state), "ncclCommGetAsyncError");
    if (state == ncclInProgress) return {.busy = true};
    if (state == ncclSuccess) return {};
    return {.error = fmt::format("{} ({})", ncclGetErrorString(state), ncclGetLastError(nullptr))};
  }
  void destroy(Handle handle, double deadline_s) noexcept override {
    using Clock = std::chrono::steady_clock;
    const auto begun = Clock::now();
    ncclResult_t state = ncclCommFinalize(comm_of(handle));
    while (state == ncclInProgress &&
           std::chrono::duration<double>(Clock::now() - begun).count() < deadline_s) {
      usleep(100);
      ncclCommGetAsyncError(comm_of(handle), &state);
    }
    if (state == ncclSuccess)
      ncclCommDestroy(comm_of(handle));
    else
      ncclCommAbort(comm_of(handle));
  }
  void abort(Handle handle) noexcept override { ncclCommAbort(comm_of(handle)); }

  void group_begin() override { check(ncclGroupStart(), "ncclGroupStart"); }
  void group_end() override { check(ncclGroupEnd(), "ncclGroupEnd"); }
  void all_reduce(Handle handle, const Tensor& inout_P, Reduce op) override {
    check(ncclAllReduce(inout_P.data_ptr(), inout_P.data_ptr(),
                        static_cast<size_t>(inout_P.numel()), reducible(inout_P.scalar_type()),
                        nccl_op(op), comm_of(handle), stream_.stream()),
          "ncclAllReduce");
  }
  void reduce_scatter(Handle handle, const Tensor& out_P, const Tensor& in_RP, Reduce op) override {
    check(ncclReduceScatter(in_RP.data_ptr(), out_P.data_ptr(), static_cast<size_t>(out_P.numel()),
                            reducible(in_RP.scalar_type()), nccl_op(op), comm_of(handle),
                            stream_.stream()),
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
    ready.record(stream_of_caller(stream_.device_index()));
    ready.block(stream_);
  }
  std::unique_ptr<Mark> mark() override { return std::make_unique<EventMark>(stream_); }

 private:
  c10::cuda::CUDAStream stream_;
};

}  // namespace

std::shared_ptr<Api> cuda_api() { return std::make_shared<CudaApi>(); }

}  // namespace nccl

at::Device cuda_device() {
  const int index = nccl::device_index(local_rank(), c10::cuda::device_count());
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

}  // namespace varscale::comm
