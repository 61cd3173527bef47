#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>

#include "base/error.hpp"
#include "nn/device.hpp"
#include "nn/graph.hpp"

namespace varscale::nn {

namespace {

class CudaGraph final : public Graph {
 public:
  explicit CudaGraph(at::Device device) : device_(device) {}

  // Relaxed: autograd launches the backward from a thread of its own.
  void record(const std::function<void()>& work) override {
    synchronise(device_);
    c10::cuda::CUDACachingAllocator::emptyCache();  // a graph's memory is its own: what the first steps used is free
    graph_.capture_begin(/*pool=*/{0, 0}, cudaStreamCaptureModeRelaxed);
    try {
      work();
    } catch (...) {
      try {
        graph_.capture_end();
      } catch (...) {  // the first error is the one to tell
      }
      throw;
    }
    graph_.capture_end();
  }
  void replay() override { graph_.replay(); }

 private:
  at::Device device_;
  at::cuda::CUDAGraph graph_;
};

}  // namespace

std::unique_ptr<Graph> make_graph(at::Device device) {
  VARSCALE_CHECK(device.is_cuda(), "a graph of {}", device.str());
  return std::make_unique<CudaGraph>(device);
}

}  // namespace varscale::nn
