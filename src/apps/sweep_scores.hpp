// Samples and scores of the finished runs of a sweep, by the section `evaluate:` of its file (sweep/evaluation.hpp).
//
//   score_sweep({.file = "sweeps/depth.yaml"}, *world);      // runs/<id>/scores.json of every finished run
//
// Ranks    Divide the images of one run after another, drawn and looked at; figures are the same at any number.
// Order    What is done is kept in runs/<id>/scores.part/, so that a launch goes on where another ended: groups of
//          images, then the figures of each value of the guidance. A run whose scores.json has the file's settings is
//          passed over; other settings replace it.
// Images   Sample j of class c is that of `var_sample --seed`, by the same index.
// Memory   As image_features.hpp and sampler.hpp say, of one run at a time.
// Errors   UserError on every rank: no such section, files that are not there or do not fit, a launch at work.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "comm/communicator.hpp"

namespace varscale::apps {

struct SweepToScore {
  std::filesystem::path file;
  std::vector<std::string> overrides;  // as var_sweep --set
  bool json = false;                   // the figures as JSON instead of a table
};

// kStopped after a signal: start it again to go on.
base::ExitCode score_sweep(const SweepToScore& what, comm::Communicator& world);

}  // namespace varscale::apps
