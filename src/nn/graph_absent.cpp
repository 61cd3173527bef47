// In a build without the GPU parts.
#include "base/error.hpp"
#include "nn/graph.hpp"

namespace varscale::nn {

std::unique_ptr<Graph> make_graph(at::Device) {
  throw base::UserError("this program was built without the GPU parts, which record graphs; use the cuda preset");
}

}  // namespace varscale::nn
