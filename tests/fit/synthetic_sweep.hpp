// Sweep folders with known laws, as var_sweep would leave them.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/random.hpp"
#include "fit/frontier.hpp"
#include "fit/power_law.hpp"
#include "records/run_file.hpp"

namespace varscale::fit {

struct SyntheticRun {
  int64_t depth = 1, seed = 0, images = 14000;
  std::string role = "main";
  std::string branch_of = {};  // its trunk
  double rate = 1;             // learning rate over 6e-3 / depth
  int64_t usual_images = 14000;
  // Near the true counts of a small VAR; what matters is one N a depth.
  double blocks_per_cube = 73953, others_per_depth = 40000;
  std::string id() const {
    return "d" + std::to_string(depth) + "-s" + std::to_string(seed) +
           (images == usual_images ? "" : "-" + std::to_string(images)) +
           (rate == 1 ? "" : "-x" + base::json_text(rate));
  }
  double lr() const { return rate * 6e-3 / static_cast<double>(depth); }
  double params_blocks() const { return blocks_per_cube * std::pow(static_cast<double>(depth), 3); }
  double params_total() const { return params_blocks() + others_per_depth * static_cast<double>(depth); }
};

struct SyntheticSweep {
  PowerLaw law_n{4.217, 2.32, 0.185};  // against params_total, at 14,000 images
  double data_exponent = 0.3;          // factor (images / usual images)^-0.3 on what lies above E
  std::optional<SurfaceLaw> surface;   // of params_total and tokens, in place of both
  ComputeCost cost;                    // of params_total and tokens
  double noise_sd = 0.0025;
  double first_loss = 5.4;  // before the first step
  // What a rate off the best one costs: curvature ln(rate / best)^2, the best over 6e-3 / depth by depth.
  double curvature = 0;
  std::function<double(int64_t depth)> best_rate = [](int64_t) { return 1.0; };
  std::vector<std::string> tune;  // the plan's
  std::vector<SyntheticRun> runs;
  std::function<void(const SyntheticRun&, records::RunTables&)>
      change;  // last word on a run's tables

  // d1 to `deepest`, two seeds below `two_seeds`, and d1 at three more budgets.
  static SyntheticSweep quickstart(int64_t deepest = 5, int64_t two_seeds = 4) {
    SyntheticSweep sweep;
    for (int64_t depth = 1; depth <= deepest; ++depth)
      for (int64_t seed = 0; seed < (depth < two_seeds ? 2 : 1); ++seed)
        sweep.runs.push_back({depth, seed});
    for (int64_t images : {3500, 7000, 28000}) sweep.runs.push_back({1, 0, images, "data"});
    return sweep;
  }

  // A law whose best size lies between d1 and d8 at 1e13 to 1e16 FLOPs.
  static SurfaceLaw small_surface() { return {Form::kChinchilla, {4.2, 44, 136, 0.3, 0.35}}; }

  // Every depth at every budget, the largest of role main.
  static SyntheticSweep grid(int64_t deepest, const std::vector<int64_t>& budgets) {
    SyntheticSweep sweep;
    sweep.surface = small_surface();
    for (int64_t depth = 1; depth <= deepest; ++depth)
      for (const int64_t images : budgets)
        sweep.runs.push_back({depth, 0, images, images == budgets.back() ? "main" : "data"});
    return sweep;
  }

  // Families of equal compute, all of role main: each a budget in FLOPs and its first and last depth.
  struct Family {
    double flops;
    int64_t first, last;
  };
  static SyntheticSweep isoflop(const std::vector<Family>& families) {
    SyntheticSweep sweep;
    sweep.surface = small_surface();
    for (const Family& family : families)
      for (int64_t depth = family.first; depth <= family.last; ++depth) {
        SyntheticRun& run = sweep.runs.emplace_back(SyntheticRun{depth});
        run.images = 16 * std::llround(sweep.cost.data(run.params_total(), family.flops) / 85 / 16);
      }
    return sweep;
  }

  records::RunTables tables(const SyntheticRun& run) const {
    const double n = run.params_total(), tokens = 85, batch = 16;
    const auto steps = static_cast<int64_t>(run.images / batch);
    const double flops_per_image = cost.of(n, tokens);
    const base::RandomStream random(static_cast<uint64_t>(run.seed), "synthetic run",
                                    static_cast<uint64_t>(run.depth),
                                    static_cast<uint64_t>(run.images));
    const double above_e = law_n.B * std::pow(n, -law_n.alpha) *
                           std::pow(static_cast<double>(run.images) / static_cast<double>(run.usual_images), -data_exponent);
    const auto draw = static_cast<uint64_t>(std::llround(1000 * run.rate)) - 1000;  // 0 at the rate of the rule
    const double off = std::log(run.rate / best_rate(run.depth));
    const double exact = surface ? surface->at(Place{n, static_cast<double>(steps) * batch * tokens}) : law_n.E + above_e;
    const double final_loss = exact + curvature * off * off + noise_sd * random.normal(draw);

    records::RunTables tables;
    tables.facts = {{"depth", run.depth},
                    {"width", 64 * run.depth},
                    {"seed", run.seed},
                    {"data_seed", int64_t{0}},
                    {"role", run.role},
                    {"budget_images", run.images},
                    {"params_total", static_cast<int64_t>(run.params_total())},
                    {"params_blocks", static_cast<int64_t>(run.params_blocks())},
                    {"params_paper", 73728 * run.depth * run.depth * run.depth},
                    {"unique_tokens", int64_t{14000 * 85}},
                    {"passes", static_cast<double>(run.images) / 14000},
                    {"flop_formula", std::string("6 N per token, for tests")},
                    {"run_id", run.id()},
                    {"sweep", std::string("synthetic")},
                    {"tokens_fingerprint", std::string("0123abcd")},
                    {"tokens_per_image", int64_t{85}},
                    {"complete", int64_t{1}},
                    {"val_images", int64_t{500}},
                    {"batch", int64_t{16}},
                    {"lr", run.lr()},
                    {"precision", std::string("fp32")}};
    int64_t last = -1;
    for (int k = 0; k <= 24; ++k) {
      const double share = std::pow(static_cast<double>(k) / 24, 2.5);
      const auto step = static_cast<int64_t>(std::lround(share * static_cast<double>(steps)));
      if (step == last) continue;
      last = step;
      const double images = static_cast<double>(step) * batch;
      const double progress = images / static_cast<double>(run.images);
      const double undecayed = 1 - std::pow(progress, 3);
      double loss = final_loss + (first_loss - final_loss) * std::pow(1 + 60 * progress, -0.8) * undecayed;
      if (surface && step == 0) loss = std::log(4096);
      else if (surface) loss = final_loss - exact + surface->at(Place{n, images * tokens}) + 0.1 * undecayed;
      const double err = 0.93 + 0.12 * (loss - 4.5);
      const records::EvalRow eval{step,
                                  0,
                                  images,
                                  images * tokens,
                                  images * flops_per_image,
                                  6e-3,
                                  loss,
                                  1.05 * loss + 0.01,
                                  err,
                                  err + 0.03,
                                  500,
                                  1,
                                  0.5};
      tables.eval.push_back(eval);
      for (int64_t scale = 0; scale < 4; ++scale)
        tables.scales.push_back({step, scale, loss + 0.1 * scale, err});
      if (step > 0)
        tables.steps.push_back({step, 0, images, eval.tokens, eval.flops, 6e-3, loss,
                                eval.loss_tail, err, eval.err_tail, 0.7, 0, 0.05, 0.05, 0.05, 0, 0.001, 0,
                                int64_t{1} << 30, 1e4, 0.1, 0.5});
    }
    if (change) change(run, tables);
    return tables;
  }

  void write(const std::filesystem::path& folder) const {
    nlohmann::ordered_json plan = {{"sweep", "synthetic"},
                                   {"runs", nlohmann::ordered_json::array()}};
    if (!tune.empty()) plan["tune"] = tune;
    for (const SyntheticRun& run : runs) {
      plan["runs"].push_back({{"id", run.id()},
                              {"depth", run.depth},
                              {"role", run.role},
                              {"images", run.images},
                              {"lr", run.lr()},
                              {"parameters", static_cast<int64_t>(run.params_total())}});
      if (!run.branch_of.empty()) plan["runs"].back()["branch_of"] = run.branch_of;
      const auto own = folder / "runs" / run.id();
      std::filesystem::create_directories(own);
      records::write_run(own / "run.h5", tables(run));
    }
    std::ofstream(folder / "plan.json") << base::json_text(plan, 2);
  }
};

}  // namespace varscale::fit
