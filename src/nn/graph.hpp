// Work of a GPU that is recorded once and launched again as a whole, without the time that its kernels' launches take.
//
//   auto graph = make_graph(device);
//   graph->record([&] { y.copy_(model(x)); });
//   x.copy_(next);  graph->replay();        // y is that of the new x
//
// Order    record() launches nothing; replay() follows the current stream, which is not the default one
//          (c10::StreamGuard), and must be the one of record().
// Memory   What the work allocates is kept for the replays; what it reads and writes must stay where it is.
// Work     Calls kernels alone: it waits for nothing, reads nothing on the host that changes, and has run before.
// Errors   UserError in a build without the GPU parts; c10::Error where the work cannot be recorded.
// Source   CUDA graphs by stream capture.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace varscale::nn {

class Graph {
 public:
  virtual ~Graph() = default;
  virtual void record(const std::function<void()>& work) = 0;
  virtual void replay() = 0;
};

// graph_gpu.cpp, graph_absent.cpp.
std::unique_ptr<Graph> make_graph(at::Device device);

}  // namespace varscale::nn
