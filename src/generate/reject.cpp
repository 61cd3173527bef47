#include "generate/reject.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "base/error.hpp"

namespace varscale::generate {

int64_t candidates_for(int64_t wanted, double keep_share) {
  VARSCALE_CHECK(wanted >= 1 && keep_share > 0 && keep_share < 1, "{} images of a share of {}", wanted, keep_share);
  // 50 / 0.1 is a little more than 500.
  constexpr double kRounding = 1e-9;
  return static_cast<int64_t>(std::ceil(static_cast<double>(wanted) / keep_share * (1 - kRounding)));
}

std::vector<int64_t> keep_likeliest(const std::vector<int64_t>& labels, const std::vector<double>& probabilities,
                                    int64_t wanted) {
  VARSCALE_CHECK(labels.size() == probabilities.size() && wanted >= 1, "{} labels, {} probabilities, {} wanted",
                 labels.size(), probabilities.size(), wanted);
  std::map<int64_t, std::vector<int64_t>> of_label;
  for (size_t i = 0; i < labels.size(); ++i) of_label[labels[i]].push_back(static_cast<int64_t>(i));
  std::vector<int64_t> kept;
  for (auto& [label, candidates] : of_label) {
    std::ranges::stable_sort(candidates, std::greater<>(),
                             [&](int64_t i) { return probabilities[static_cast<size_t>(i)]; });
    const auto count = std::min(candidates.size(), static_cast<size_t>(wanted));
    kept.insert(kept.end(), candidates.begin(), candidates.begin() + static_cast<int64_t>(count));
  }
  std::ranges::sort(kept);
  return kept;
}

}  // namespace varscale::generate
