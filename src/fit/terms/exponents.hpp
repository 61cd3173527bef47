// Intervals of a frontier's exponents from anything that can be drawn anew.
#pragma once

#include <algorithm>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/random.hpp"
#include "fit/frontier.hpp"
#include "fit/terms/in_parallel.hpp"

namespace varscale::fit {

inline constexpr int64_t kFewestRedraws = 100, kMostTries = 1000;

// draw(random, first): the exponents of N* and D* in one resample, whose random numbers are those of `random` from
// `first` on, which it moves behind the last it took; nothing where that resample has none, which is drawn again and
// counted. Nothing where kMostTries in a row have none.
template <class Draw>
std::optional<ExponentIntervals> exponent_intervals(std::string_view purpose, const BootstrapOptions& options,
                                                    const Draw& draw) {
  if (options.resamples < kFewestRedraws)
    throw base::UserError("{} bootstrap resamples; expected at least {}", options.resamples, kFewestRedraws);
  const auto count = static_cast<size_t>(options.resamples);
  std::vector<double> a(count), b(count);
  std::vector<int64_t> redrawn(count);
  in_parallel(count, [&](size_t k) {
    const base::RandomStream random(options.seed, purpose, k);
    uint64_t first = 0;
    for (; redrawn[k] < kMostTries; ++redrawn[k]) {
      const std::optional<std::pair<double, double>> exponents = draw(random, first);
      if (!exponents) continue;
      a[k] = exponents->first, b[k] = exponents->second;
      return;
    }
  });
  if (std::ranges::max(redrawn) == kMostTries) return std::nullopt;
  return ExponentIntervals{.a = central_interval(a, options.level),
                           .b = central_interval(b, options.level),
                           .resamples = options.resamples,
                           .redrawn = std::accumulate(redrawn.begin(), redrawn.end(), int64_t{0}),
                           .level = options.level};
}

}  // namespace varscale::fit
