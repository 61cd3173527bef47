#include "sweep/tune.hpp"

#include <fmt/format.h>

#include <map>
#include <set>
#include <tuple>

namespace varscale::sweep {

namespace {

constexpr size_t kFewestValues = 3;  // of a parabola

// What the runs of one point share: every setting but the tuned one and the seeds.
nlohmann::ordered_json shared_settings(const SweepRun& run) {
  nlohmann::ordered_json settings = identity_of(run.config, run.tokens);
  settings["settings"]["optimizer"].erase("lr");
  for (const char* seed : {"seed", "data_seed"}) settings["settings"]["train"].erase(seed);
  return settings;
}

}  // namespace

std::vector<TuneFault> tune_faults(const std::vector<SweepRun>& runs, const std::string& where_tune) {
  // By depth and budget, and by the tokens: each kind of them has a fit of its own.
  std::map<std::tuple<int64_t, int64_t, std::string, std::string>, std::vector<const SweepRun*>> points;
  for (const SweepRun& run : runs)
    if (run.config.role == "main")
      points[{run.config.model.depth, images_seen_of(run.config),
              run.tokens.assumed() ? run.tokens.assumed_apart : run.tokens.fingerprint, run.config.data.tokens}]
          .push_back(&run);
  std::vector<TuneFault> faults;
  if (points.empty())
    faults.push_back({where_tune, "tune: no run has role main, which is what is tuned"});
  for (const auto& [point, members] : points) {
    const auto& [depth, images, tokens, source] = point;
    std::set<double> values;
    const SweepRun* other = nullptr;
    for (const SweepRun* run : members) {
      values.insert(run->config.optimizer.lr);
      if (shared_settings(*run) != shared_settings(*members.front())) other = run;
    }
    const std::string& where = (other ? other : members.front())->where;
    if (other)
      faults.push_back({where, fmt::format("d{} at {} images: {} and {} differ in more than {} and seeds, which is all "
                                           "that the runs of a tuned point may differ in",
                                           depth, images, members.front()->id, other->id, kTunable)});
    else if (values.size() < kFewestValues)
      faults.push_back({where, fmt::format("d{} at {} images has {} value{} of {}; tune needs at least {}", depth,
                                           images, values.size(), values.size() == 1 ? "" : "s", kTunable,
                                           kFewestValues)});
  }
  return faults;
}

}  // namespace varscale::sweep
