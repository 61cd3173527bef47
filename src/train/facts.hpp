// What run.h5 says of its run in root attributes, and which validation images a subset holds.
#pragma once

#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "records/run_file.hpp"
#include "scaling/layout.hpp"
#include "train/eval_points.hpp"
#include "train/step_report.hpp"
#include "train/trainer.hpp"

namespace varscale::train {

records::Facts run_facts(const TrainJob& job, const checkpoint::Identity& identity,
                         const scaling::VarShape& shape, const EvalPlan& evaluations,
                         int64_t validation_images);

// What may change from one segment of a run to the next: ranks, hosts, device, mode.
void add_layout_facts(records::Facts& facts, const scaling::Layout& layout,
                      const Hardware& hardware);

// The first `count` of a fixed permutation of the validation set: the same images in every run.
std::vector<int64_t> evaluation_images(int64_t validation_images, int64_t count);

}  // namespace varscale::train
