#include "sample_rejection.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/progress.hpp"
#include "generate/reject.hpp"

namespace varscale::apps {

Kept keep_by_classifier(const evaluate::ResNet50& classifier, const generate::SampleJob& job,
                        const std::vector<generate::Request>& requests, int64_t wanted,
                        comm::Communicator& world) {
  constexpr int64_t kTogether = 8;
  const auto count = static_cast<int64_t>(requests.size());
  const at::Tensor p_N = at::zeros({count}, at::kDouble);
  auto* p = p_N.mutable_data_ptr<double>();
  using Style = base::Progress::Style;
  base::Progress progress("classify", (count + world.size() - 1) / world.size(), "images",
                          world.rank() == 0 ? Style::kAuto : Style::kSilent);
  comm::agree_on(world, "classifier", [&] {
    for (int64_t begin = kTogether * world.rank(); begin < count; begin += kTogether * world.size()) {
      const int64_t some = std::min(kTogether, count - begin);
      const at::Tensor p_BK = classifier.probabilities(job.batch(begin, some));
      for (int64_t i = 0; i < some; ++i)
        p[begin + i] = p_BK[i][requests[static_cast<size_t>(begin + i)].label].item<double>();
      progress.advance(some);
    }
  });
  progress.finish();
  world.all_reduce(p_N, comm::Reduce::kSum, "probabilities").wait();  // every other rank has 0
  std::vector<int64_t> labels;
  for (const generate::Request& request : requests) labels.push_back(request.label);
  Kept kept{.candidates = generate::keep_likeliest(labels, {p, p + count}, wanted),
            .probability = {},
            .mean_of_all = p_N.mean().item<double>()};
  for (const int64_t i : kept.candidates) kept.probability.push_back(p[i]);
  return kept;
}

}  // namespace varscale::apps
