// What the tokens of a file look like without any model: the bounds that a trained model must beat.
//
//   TokenStatistics s = token_statistics(file);
//   s.unigram, s.class_unigram        // nats per token on the validation images
//
// unigram        Cross-entropy of validation tokens under the training set's code frequencies, the same
//                at every position: the mean over all tokens.
// scale_unigram  The same with frequencies of each scale of its own.
// class_unigram  With frequencies of each class of its own (at every position).
// Smoothing      Half a count for each code; a class's counts are joined by V / 2 counts spread as the
//                whole training set's frequencies.
#pragma once

#include <cstdint>
#include <vector>

#include "records/token_file.hpp"

namespace varscale::data {

struct ScaleStatistics {
  int64_t side = 0;
  int64_t codes_used = 0;  // by the training rows
  double entropy = 0;      // of the training frequencies, nats; exp() of it is the perplexity
  double unigram = 0;  // validation cross-entropy under this scale's frequencies, nats per token
};

struct TokenStatistics {
  int64_t codes_used = 0;  // over all scales
  double entropy = 0;
  double unigram = 0, scale_unigram = 0, class_unigram = 0;
  std::vector<ScaleStatistics> scales;
};

TokenStatistics token_statistics(const records::TokenFile& file);

}  // namespace varscale::data
