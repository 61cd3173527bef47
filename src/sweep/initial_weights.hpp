// The files of weights that runs of a sweep file begin with (model.init_from), looked into once each.
//
//   InitialWeights weights;
//   config.model.init_fingerprint = weights.fingerprint_for(config, tokens);      // "" without init_from
//
// Errors   UserError that begins with model.init_from: no file of weights, of another model than the run's (with the
//          first key), another fingerprint than the one that the run asks for. Whether the values are those of the
//          fingerprint is compared when a run begins.
#pragma once

#include <map>
#include <string>

#include "archives/weights_file.hpp"
#include "sweep/identity.hpp"

namespace varscale::sweep {

class InitialWeights {
 public:
  std::string fingerprint_for(const RunConfig& run, const TokenFacts& tokens);

 private:
  std::map<std::string, archives::WeightsFile> files_;  // by path
};

}  // namespace varscale::sweep
