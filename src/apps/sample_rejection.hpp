// Which candidates of var_sample stay, by a classifier that all ranks ask.
//
//   const Kept kept = keep_by_classifier(classifier, job, requests, /*wanted=*/50, *world);
//
// Groups   The classifier sees candidates [8 i, 8 i + 8) together, whichever rank asks it: probabilities are the same
//          bit for bit at any number of ranks, at one number of threads a rank and one type of machine.
// Order    Collective, once all candidates are drawn.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.hpp"
#include "evaluate/resnet.hpp"
#include "generate/sample_job.hpp"

namespace varscale::apps {

struct Kept {
  std::vector<int64_t> candidates;  // the numbers of those that stay, rising
  std::vector<double> probability;  // of each of them, that it is of its class
  double mean_of_all = 0;           // over all candidates
};

Kept keep_by_classifier(const evaluate::ResNet50& classifier, const generate::SampleJob& job,
                        const std::vector<generate::Request>& requests, int64_t wanted,
                        comm::Communicator& world);

}  // namespace varscale::apps
