#include "scales.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "base/file.hpp"

namespace varscale::analysis {
namespace {

struct Rows {
  const Run* run;
  std::vector<records::ScaleRow> scales;  // of the last evaluation
};

std::vector<Rows> final_rows(const SweepRuns& sweep) {
  std::vector<const Run*> runs = sweep.main_runs();
  for (const Run*& run : runs)
    for (const TunedPoint& point : sweep.tuned)
      if (run == &point.run)
        run = &sweep.runs[*std::ranges::min_element(point.members, {},
                                                    [&](size_t i) { return sweep.runs[i].final.loss_mean; })];
  std::vector<Rows> result;
  for (const Run* run : runs) {
    Rows rows{run, {}};
    for (const records::ScaleRow& row : run->tables.scales)
      if (row.step == run->final.step) rows.scales.push_back(row);
    if (!rows.scales.empty()) result.push_back(std::move(rows));
  }
  return result;
}

std::string side_of(const Run& run, int64_t scale) {
  std::istringstream words(run.tokens.scales);
  std::string side;
  for (int64_t k = 0; k <= scale; ++k)
    if (!std::getline(words, side, ',')) return {};
  return side;
}

}  // namespace

ScaleGains scale_gains(const SweepRuns& sweep) {
  const std::vector<Rows> all = final_rows(sweep);
  if (all.empty()) return {};
  const auto [least, most] = std::ranges::minmax(all, {}, [](const Rows& rows) { return rows.run->depth; });
  ScaleGains gains{least.run->depth, most.run->depth, {}};
  if (gains.smallest == gains.largest) return gains;
  struct Sums {
    double loss = 0, err = 0, runs = 0;
  };
  std::map<int64_t, Sums> small, large;
  for (const Rows& rows : all) {
    if (rows.run->depth != gains.smallest && rows.run->depth != gains.largest) continue;
    for (const records::ScaleRow& row : rows.scales) {
      Sums& sums = (rows.run->depth == gains.smallest ? small : large)[row.scale];
      sums.loss += row.loss, sums.err += row.err, sums.runs += 1;
    }
  }
  for (const auto& [scale, a] : small) {
    const auto b = large.find(scale);
    if (b == large.end()) continue;
    gains.scales.push_back({scale, side_of(*all.front().run, scale), a.loss / a.runs, a.err / a.runs,
                            b->second.loss / b->second.runs, b->second.err / b->second.runs});
  }
  return gains;
}

void write_scales_csv(const SweepRuns& sweep, const std::filesystem::path& path) {
  std::string text;
  for (const auto& [run, scales] : final_rows(sweep))
    for (const records::ScaleRow& row : scales)
      text += fmt::format("{},{},{},{:.10g},{},{},{:.10g},{:.10g}\n", run->id, run->depth, run->seed, run->params_total,
                          row.scale, side_of(*run, row.scale), row.loss, row.err);
  if (!text.empty()) base::write_file_atomic(path, "run,depth,seed,params_total,scale,side,loss,err\n" + text);
}

}  // namespace varscale::analysis
