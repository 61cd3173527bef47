#include "sweep/initial_weights.hpp"

#include "base/error.hpp"

namespace varscale::sweep {

using base::UserError;

std::string InitialWeights::fingerprint_for(const RunConfig& run, const TokenFacts& tokens) {
  const ModelConfig& model = run.model;
  if (model.init_from.empty()) return "";  // of other runs, or a fault (conditional.hpp)
  const scaling::VarShape shape = shape_of(run, tokens);
  try {
    const archives::WeightsFile& file = files_.try_emplace(model.init_from, model.init_from).first->second;
    file.check_fits(shape);
    if (model.init_fingerprint.empty() || model.init_fingerprint == file.fingerprint()) return file.fingerprint();
    throw UserError("{}: has fingerprint {}, model.init_fingerprint asks for {}", model.init_from, file.fingerprint(),
                    model.init_fingerprint);
  } catch (const UserError& error) {
    throw UserError("model.init_from: {}", error.what());
  }
}

}  // namespace varscale::sweep
