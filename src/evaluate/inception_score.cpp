#include "evaluate/inception_score.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace varscale::evaluate {
namespace {

double score_of(const Tensor& p_NC) {
  const Tensor mean_C = p_NC.mean(0, /*keepdim=*/true);
  const Tensor divergence_N = (at::xlogy(p_NC, p_NC) - at::xlogy(p_NC, mean_C)).sum(1);
  return std::exp(divergence_N.mean().item<double>());
}

InceptionScore score_parts(const Tensor& probabilities_NC, const std::vector<int64_t>& bounds) {
  const Tensor p_NC = probabilities_NC.to(at::kDouble);
  InceptionScore score;
  for (size_t i = 0; i + 1 < bounds.size(); ++i)
    score.parts.push_back(score_of(p_NC.slice(0, bounds[i], bounds[i + 1])));
  const Tensor parts = at::tensor(score.parts, at::kDouble);
  score.mean = parts.mean().item<double>();
  score.deviation = parts.std(/*unbiased=*/false).item<double>();
  return score;
}

}  // namespace

InceptionScore inception_score(const Tensor& probabilities_NC, int64_t part_size) {
  const int64_t images = probabilities_NC.size(0);
  if (images < 1 || part_size < 1)
    throw base::UserError("an Inception score of {} images in parts of {}: expected at least 1 of each", images,
                          part_size);
  std::vector<int64_t> bounds;
  for (int64_t begin = 0; begin < images; begin += part_size) bounds.push_back(begin);
  bounds.push_back(images);
  return score_parts(probabilities_NC, bounds);
}

InceptionScore inception_score_in_splits(const Tensor& probabilities_NC, int64_t splits) {
  const int64_t images = probabilities_NC.size(0);
  if (splits < 1 || splits > images)
    throw base::UserError("an Inception score of {} images in {} parts: expected 1 to {} parts", images, splits,
                          images);
  std::vector<int64_t> bounds;
  for (int64_t i = 0; i <= splits; ++i) bounds.push_back(i * images / splits);
  return score_parts(probabilities_NC, bounds);
}

}  // namespace varscale::evaluate
