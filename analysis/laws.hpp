// Which laws are fitted to a sweep, and with what they are reported.
//
//   Analysis analysis = analyse(runs, options);
//   const LawFit* headline = analysis.find("L(N)", "total", Metric::kLossMean, "free");
//
// L(N)   final value against parameters, over the runs of role main: all of one budget in images, hence
//        "L(N) at fixed data". By every rule of counting; `total` is the headline.
//        With Options::across_data their budgets may differ: L(N) across data, which mixes what size and data do, and
//        every such law says so in its caveat.
// L(C)   the same runs against their training FLOPs.
// L(D)   one depth against images seen: the runs of role data with the main runs of that depth, where
//        there are at least three budgets.
// Each with E free and with E given: 0, and the user's E where stated (losses only).
//
// Errors   UserError as in fit/: a form that the headline needs but that the sweep has too few sizes for; main runs whose
//          data differ without across_data, or do not with it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fit/bootstrap.hpp"
#include "fit/held_out.hpp"
#include "fit/power_law.hpp"
#include "fit/profile.hpp"
#include "runs.hpp"

namespace varscale::analysis {

struct Options {
  fit::BootstrapOptions bootstrap;
  int64_t hold_out = 1;
  std::optional<double> e_mean, e_tail;  // stated irreducible losses
  std::string e_source;
  bool across_data = false;  // L(N) over main runs whose budgets in images differ
};

struct LawFit {
  std::string law;     // "L(N)", "L(C)", "L(D)"
  std::string x_rule;  // "total", "blocks", "paper"; the FLOP formula; "images, d1"
  Metric metric = Metric::kLossMean;
  std::string e_rule;  // "free", "0" or "given"
  std::vector<const Run*> runs;
  std::vector<fit::Observation> points;  // of `runs`, in their order
  fit::PowerFit fit;
  std::optional<fit::Bootstrap> bootstrap;  // nothing where nothing tells the noise
  std::optional<fit::ProfileIntervals> profile = {};  // not of tuned points, nor where a constant lies on its bound
  std::optional<fit::HuberCheck> check;     // of the headline fits
  std::string caveat;                       // empty, or why to read it with care

  std::string id() const;  // "L(N) total loss_mean E free"
};

struct Held {
  std::string x_rule, e_rule;
  Metric metric = Metric::kLossMean;
  int64_t depth = 0, previous_depth = 0;
  fit::HeldOut result;
};

// The main runs of the least and the most images, where L(N) was asked for over runs whose data differ.
struct AcrossData {
  const Run *least = nullptr, *most = nullptr;
  std::string sentence() const;  // what it means for L(N)
};

struct Analysis {
  std::optional<AcrossData> across;
  std::vector<LawFit> fits;
  std::vector<Held> held_out;
  std::vector<std::string> notes;  // what could not be done, each one sentence

  const LawFit* find(const std::string& law, const std::string& x_rule, Metric metric,
                     const std::string& e_rule) const;
  const Held* find_held(const std::string& x_rule, Metric metric, const std::string& e_rule) const;
};

Analysis analyse(const SweepRuns& sweep, const Options& options);

std::vector<fit::Observation> size_points(std::span<const Run* const> runs, NRule rule,
                                          Metric metric);

// "L = 4.217 + 2.32 N^-0.185"
std::string law_words(const fit::PowerFit& fit, std::string_view x);
// "L(N) at fixed data: L = ... (90 % interval of the exponent 0.15-0.23) over d1-d5"
std::string headline(const Analysis& analysis, const SweepRuns& sweep);
// A number with its leading digits: 0.0146, 4.217.
std::string digits(double value, int significant = 4);

}  // namespace varscale::analysis
