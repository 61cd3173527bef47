// A sweep of twelve depths that follows the published laws of VAR (arXiv 2404.02905, figure 5).
#pragma once

#include <array>
#include <cmath>

#include "tests/fit/synthetic_sweep.hpp"

namespace varscale::fit {

// d8 to d30, three seeds at d8 and d10. With N in billions L_avg = (2.5 N)^-0.20 + 5.0 over all tokens and
// L_last = (2.0 N)^-0.23 + 4.5 over the last map's; N = 73,728 d^3. Each run is off by its own noise of 0.003.
inline SyntheticSweep paper_sweep() {
  static constexpr std::array<int64_t, 10> kSides{1, 2, 3, 4, 5, 6, 8, 10, 13, 16};
  SyntheticSweep sweep;
  sweep.law_n = {5.0, std::pow(2.5e-9, -0.20), 0.20};
  sweep.noise_sd = 0.003;
  sweep.first_loss = std::log(4096.0);
  for (int64_t depth = 8; depth <= 30; depth += 2)
    for (int64_t seed = 0; seed < (depth <= 10 ? 3 : 1); ++seed) {
      SyntheticRun run{.depth = depth, .seed = seed, .images = 256233400, .usual_images = 256233400};
      run.blocks_per_cube = 73728, run.others_per_depth = 0;
      sweep.runs.push_back(run);
    }
  sweep.change = [](const SyntheticRun& run, records::RunTables& tables) {
    const PowerLaw law_mean{5.0, std::pow(2.5e-9, -0.20), 0.20}, law_tail{4.5, std::pow(2.0e-9, -0.23), 0.23};
    const double n = run.params_total(), tail_below = law_mean.at(n) - law_tail.at(n);
    // Finer maps have the lower loss and gain more from size; weighted by their tokens they come to the mean.
    double tokens = 0, mean_place = 0;
    for (size_t k = 0; k < kSides.size(); ++k) {
      const auto own = static_cast<double>(kSides[k] * kSides[k]);
      tokens += own, mean_place += own * static_cast<double>(k);
    }
    mean_place /= tokens;
    const auto error_at = [](double loss) { return 1 - 0.6 * std::exp(-0.4 * (loss - 4)); };
    tables.scales.clear();
    for (records::EvalRow& e : tables.eval) {
      e.loss_tail = e.loss_mean - tail_below;
      e.err_mean = error_at(e.loss_mean), e.err_tail = error_at(e.loss_tail);
      e.tokens = e.images * tokens;
      e.flops = 6 * n * e.tokens;
      e.val_images = 50000;
      for (size_t k = 0; k < kSides.size(); ++k) {
        const double off = static_cast<double>(k) - mean_place;
        const bool last = k + 1 == kSides.size();
        const double loss = last ? e.loss_tail : 5.0 - 0.12 * off + (1 + 0.1 * off) * (e.loss_mean - 5);
        tables.scales.push_back({e.step, static_cast<int64_t>(k), loss, error_at(loss)});
      }
    }
    tables.facts["tokens_per_image"] = static_cast<int64_t>(tokens);
    tables.facts["scales"] = std::string("1,2,3,4,5,6,8,10,13,16");
    tables.facts["val_images"] = int64_t{50000};
    tables.facts["unique_tokens"] = static_cast<int64_t>(1281167 * tokens);
    tables.facts["passes"] = 200.0;
    tables.facts["batch"] = int64_t{1024};
    tables.facts["precision"] = std::string("bf16");
    tables.facts["flop_formula"] = std::string("6 N per token");
    tables.facts["device"] = std::string("a synthetic device");
    tables.facts["ranks"] = int64_t{64};
    tables.facts["numerics_version"] = int64_t{1};
  };
  return sweep;
}

}  // namespace varscale::fit
