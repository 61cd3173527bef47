// The Inception score: exp of the mean KL divergence between an image's class probabilities and their mean over a part
// of the set; the score is the mean over the parts.
//
//   Tensor probabilities_NC = at::softmax(network.logits(pool3_ND).to(at::kDouble), 1);
//   InceptionScore score = inception_score(probabilities_NC, 5000);      // consecutive parts, as ADM's evaluator
//   InceptionScore old = inception_score_in_splits(probabilities_NC, 10);
//
// Parts are consecutive rows: in a set sorted by class each part holds few classes and the score is far too low.
// Shuffle first. A probability of 0 adds 0.
// Legend   N images, C classes.
// Source   Salimans et al. 2016 (arXiv 1606.03498), section 4; the parts as openai/guided-diffusion
//          evaluations/evaluator.py and openai/improved-gan inception_score/model.py have them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace varscale::evaluate {

using at::Tensor;

struct InceptionScore {
  double mean = 0, deviation = 0;  // over the parts; the deviation divides by their number
  std::vector<double> parts;
};

// Parts of `part_size` rows; the last one may be shorter and weighs as much as the others.
InceptionScore inception_score(const Tensor& probabilities_NC, int64_t part_size = 5000);
// `splits` parts, part i from row floor(i N / splits) on. UserError where a part would be empty.
InceptionScore inception_score_in_splits(const Tensor& probabilities_NC, int64_t splits = 10);

}  // namespace varscale::evaluate
