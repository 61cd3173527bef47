// Rejection sampling: more images of a class are drawn than are wanted, and a classifier says which stay.
//
//   int64_t drawn = candidates_for(/*wanted=*/50, /*keep_share=*/0.5);         // 100 of each class
//   std::vector<int64_t> kept = keep_likeliest(labels, probabilities, 50);
//
// Rule     Of the candidates of each class, those to which the classifier gives the largest probability of that class
//          stay, as many as are wanted; of equal ones the first. They keep their numbers and their order. So a share of
//          each class stays, whatever the classifier makes of the class as a whole.
// Source   Razavi et al. 2019 (arXiv 1906.00446), classifier-based rejection; the rule that VAR's authors used (arXiv
//          2404.02905, "-re") is not published in numbers.
#pragma once

#include <cstdint>
#include <vector>

namespace varscale::generate {

// wanted / keep_share, rounded up. keep_share in (0, 1).
int64_t candidates_for(int64_t wanted, double keep_share);

// The numbers of the candidates that stay, rising: `wanted` of each label, or all of one with no more.
// probabilities[i]: of candidate i, that it is of labels[i].
std::vector<int64_t> keep_likeliest(const std::vector<int64_t>& labels, const std::vector<double>& probabilities,
                                    int64_t wanted);

}  // namespace varscale::generate
