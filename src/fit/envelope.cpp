#include "fit/envelope.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/error.hpp"
#include "fit/terms/exponents.hpp"
#include "fit/terms/groups.hpp"

namespace varscale::fit {
namespace {

constexpr int64_t kSizesForEdges = 3;      // with fewer every best size is an edge
constexpr int64_t kCrossingsForExponents = 3;

struct Node {
  double log_c, log_d, log_loss;
  size_t curve;
  std::optional<double> slope = {};  // of log_loss; between nodes without it the chain is straight
};
using Chain = std::vector<Node>;  // log_c rising

void check(std::span<const Curve> curves, const EnvelopeRules& rules) {
  for (const Curve& curve : curves) {
    double last = 0;
    VARSCALE_CHECK(!curve.points.empty(), "a curve without points");
    for (const CurvePoint& p : curve.points) {
      for (const double value : {curve.N, p.C, p.D, p.loss})
        if (!std::isfinite(value) || !(value > 0))
          throw base::UserError("a point with N = {:g}, C = {:g}, D = {:g} and loss {:g}; expected finite positive numbers",
                                curve.N, p.C, p.D, p.loss);
      if (!(p.C > last)) throw base::UserError("a curve whose C goes from {:g} to {:g}; expected rising C", last, p.C);
      last = p.C;
    }
  }
  if (rules.budgets_per_decade < 1)
    throw base::UserError("{} budgets a decade; expected at least 1", rules.budgets_per_decade);
  if (!rules.checkpoints) return;
  if (rules.checkpoints->smoothing < 1 || rules.checkpoints->smoothing % 2 == 0)
    throw base::UserError("a moving average of {} points; expected an odd number", rules.checkpoints->smoothing);
  if (!(rules.checkpoints->least_progress >= 0 && rules.checkpoints->least_progress < 1))
    throw base::UserError("{:g} as the first share of a schedule that counts; expected 0 or more and less than 1",
                          rules.checkpoints->least_progress);
}

// What counts of each curve.
std::vector<Chain> counted(std::span<const Curve> curves, const EnvelopeRules& rules) {
  std::vector<Chain> result;
  for (size_t i = 0; i < curves.size(); ++i) {
    Chain& chain = result.emplace_back();
    const std::vector<CurvePoint>& points = curves[i].points;
    const double first = rules.checkpoints ? rules.checkpoints->least_progress * points.back().D : points.back().D;
    for (const CurvePoint& p : points)
      if (p.D >= first) chain.push_back({std::log(p.C), std::log(p.D), std::log(p.loss), i});
    if (!rules.checkpoints) continue;
    // The window shrinks towards both ends and stays centred: the end of a schedule stays what it is.
    const Chain raw = chain;
    const size_t half = static_cast<size_t>(rules.checkpoints->smoothing) / 2;
    for (size_t k = 0; k < raw.size(); ++k) {
      const size_t reach = std::min({half, k, raw.size() - 1 - k});
      double sum = 0;
      for (size_t j = k - reach; j <= k + reach; ++j) sum += raw[j].log_loss;
      chain[k].log_loss = sum / static_cast<double>(2 * reach + 1);
    }
  }
  return result;
}

// Slopes of the parabolas through each node and its neighbours.
void give_slopes(Chain& chain) {
  if (chain.size() < 3) return;
  const auto secant = [&](size_t i) {
    return (chain[i + 1].log_loss - chain[i].log_loss) / (chain[i + 1].log_c - chain[i].log_c);
  };
  const auto step = [&](size_t i) { return chain[i + 1].log_c - chain[i].log_c; };
  const size_t last = chain.size() - 1;
  for (size_t i = 1; i < last; ++i)
    chain[i].slope = (step(i) * secant(i - 1) + step(i - 1) * secant(i)) / (step(i - 1) + step(i));
  chain[0].slope = 2 * secant(0) - *chain[1].slope;
  chain[last].slope = 2 * secant(last - 1) - *chain[last - 1].slope;
}

// The ends of one size as one chain: ends at one C are averaged.
Chain joined(Chain ends) {
  std::ranges::sort(ends, {}, &Node::log_c);
  Chain chain;
  for (size_t i = 0; i < ends.size();) {
    size_t next = i;
    double sum = 0;
    while (next < ends.size() && ends[next].log_c == ends[i].log_c) sum += ends[next++].log_loss;
    chain.push_back(ends[i]);
    chain.back().log_loss = sum / static_cast<double>(next - i);
    i = next;
  }
  give_slopes(chain);
  return chain;
}

struct SizeChains {
  double N;
  std::vector<Chain> chains;
};

// By rising N; `chosen` may name a curve several times.
std::vector<SizeChains> by_size(std::span<const Curve> curves, const std::vector<Chain>& counted_of,
                                std::span<const size_t> chosen, bool join) {
  std::map<double, std::vector<Chain>> sizes;
  for (const size_t i : chosen) {
    std::vector<Chain>& chains = sizes[curves[i].N];
    if (join && !chains.empty())
      chains.front().insert(chains.front().end(), counted_of[i].begin(), counted_of[i].end());
    else
      chains.push_back(counted_of[i]);
  }
  std::vector<SizeChains> result;
  for (auto& [N, chains] : sizes) {
    if (join) chains.front() = joined(std::move(chains.front()));
    result.push_back({N, std::move(chains)});
  }
  return result;
}

// In logs straight, or where there are slopes the cubic that has them; nothing outside the chain.
std::optional<Node> read(const Chain& chain, double log_c) {
  if (chain.empty() || log_c < chain.front().log_c || log_c > chain.back().log_c) return std::nullopt;
  const auto after = std::ranges::lower_bound(chain, log_c, {}, &Node::log_c);
  if (after->log_c == log_c) return *after;
  const Node &right = *after, &left = *(after - 1);
  const double share = (log_c - left.log_c) / (right.log_c - left.log_c);
  Node node{log_c, std::lerp(left.log_d, right.log_d, share), std::lerp(left.log_loss, right.log_loss, share),
            share < 0.5 ? left.curve : right.curve};
  if (left.slope && right.slope) {
    const double width = right.log_c - left.log_c, rise = right.log_loss - left.log_loss;
    node.log_loss += share * (1 - share) *
                     ((1 - share) * (width * *left.slope - rise) - share * (width * *right.slope - rise));
  }
  return node;
}

std::vector<double> budgets_between(double low, double high, int64_t per_decade) {
  const auto steps = static_cast<int64_t>(std::ceil((high - low) / std::log(10.0) * static_cast<double>(per_decade)));
  std::vector<double> result = {low};
  for (int64_t k = 1; k < steps; ++k)
    result.push_back(low + (high - low) * static_cast<double>(k) / static_cast<double>(steps));
  if (high > low) result.push_back(high);
  return result;
}

struct Reached {
  double N;
  Node node;
};

// The lowest of each size that reaches this budget, by rising N.
std::vector<Reached> reached_at(const std::vector<SizeChains>& sizes, double log_c) {
  std::vector<Reached> result;
  for (const SizeChains& size : sizes) {
    std::optional<Node> best;
    for (const Chain& chain : size.chains)
      if (const auto node = read(chain, log_c); node && (!best || node->log_loss < best->log_loss)) best = node;
    if (best) result.push_back({size.N, *best});
  }
  return result;
}

std::vector<Reached>::const_iterator best_of(const std::vector<Reached>& reached) {
  return std::ranges::min_element(reached, {}, [](const Reached& each) { return each.node.log_loss; });
}

// Where the best sizes of two neighbouring budgets are equally good; nothing where it is one size, or one of them does not
// reach both budgets.
std::optional<Crossing> crossing_of(const std::vector<Reached>& before, const std::vector<Reached>& after) {
  const auto was = best_of(before), is = best_of(after);
  if (was->N == is->N) return std::nullopt;
  const auto was_after = std::ranges::find(after, was->N, &Reached::N);
  const auto is_before = std::ranges::find(before, is->N, &Reached::N);
  if (was_after == after.end() || is_before == before.end()) return std::nullopt;
  const double behind = is_before->node.log_loss - was->node.log_loss, ahead = was_after->node.log_loss - is->node.log_loss;
  const double share = behind + ahead > 0 ? behind / (behind + ahead) : 0.5;
  const double log_d = (std::lerp(was->node.log_d, was_after->node.log_d, share) +
                        std::lerp(is_before->node.log_d, is->node.log_d, share)) / 2;
  return Crossing{.C = std::exp(std::lerp(was->node.log_c, is->node.log_c, share)),
                  .N = std::sqrt(was->N * is->N),
                  .D = std::exp(log_d),
                  .smaller = std::min(was->N, is->N),
                  .larger = std::max(was->N, is->N)};
}

Envelope envelope_over(const std::vector<SizeChains>& sizes, const EnvelopeRules& rules) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const SizeChains& size : sizes)
    for (const Chain& chain : size.chains)
      low = std::min(low, chain.front().log_c), high = std::max(high, chain.back().log_c);
  Envelope result;
  std::vector<Reached> before;
  for (const double log_c : budgets_between(low, high, rules.budgets_per_decade)) {
    ++result.budgets;
    std::vector<Reached> reached = reached_at(sizes, log_c);
    if (static_cast<int64_t>(reached.size()) < kSizesForEdges) {
      ++result.too_few_sizes;
      before.clear();
      continue;
    }
    if (!before.empty())
      if (const auto crossing = crossing_of(before, reached)) result.crossings.push_back(*crossing);
    const auto best = best_of(reached);
    const bool smallest = best == reached.begin(), largest = best == reached.end() - 1;
    if (rules.edge_sizes || !(smallest || largest))
      result.rows.push_back({std::exp(log_c), best->N, std::exp(best->node.log_d), std::exp(best->node.log_loss),
                             best->node.curve});
    else
      ++(smallest ? result.at_smallest : result.at_largest);
    before = std::move(reached);
  }
  std::vector<double> c, n, d;
  for (const Crossing& each : result.crossings) c.push_back(each.C), n.push_back(each.N), d.push_back(each.D);
  if (static_cast<int64_t>(c.size()) < kCrossingsForExponents)
    result.why_no_exponents = fmt::format("the best size changes at {} budget{}; exponents need {}", c.size(),
                                          c.size() == 1 ? "" : "s", kCrossingsForExponents);
  else
    result.N = fit_power_line(c, n), result.D = fit_power_line(c, d);
  return result;
}

}  // namespace

std::string points_words(const EnvelopeRules& rules) {
  if (!rules.checkpoints)
    return "Only ends of schedules count; between those of one size ln loss is a cubic of ln C.";
  const int64_t smoothing = rules.checkpoints->smoothing;
  return fmt::format("Every checkpoint from {:g} % of its schedule on counts, decayed or not, {}.",
                     100 * rules.checkpoints->least_progress,
                     smoothing > 1 ? fmt::format("after a moving average over {} of them", smoothing) : "without smoothing");
}

std::string words(const EnvelopeRules& rules) {
  return points_words(rules) +
         fmt::format(" {} budgets a decade; one that fewer than {} sizes reach is left out{}. Exponents are of lines through "
                     "the crossings at which the best size changes, at the geometric mean of the two sizes.",
                     rules.budgets_per_decade, kSizesForEdges,
                     rules.edge_sizes ? "" : ", and one whose best size is the smallest or largest that reaches it");
}

Envelope envelope_of(std::span<const Curve> curves, const EnvelopeRules& rules) {
  VARSCALE_CHECK(!curves.empty(), "an envelope of no curves");
  check(curves, rules);
  std::vector<size_t> all(curves.size());
  std::iota(all.begin(), all.end(), size_t{0});
  return envelope_over(by_size(curves, counted(curves, rules), all, !rules.checkpoints), rules);
}

std::optional<ExponentIntervals> bootstrap_envelope(std::span<const Curve> curves, const EnvelopeRules& rules,
                                                    const BootstrapOptions& options, const std::optional<Noise>& noise) {
  if (!envelope_of(curves, rules).N) return std::nullopt;
  const std::vector<Chain> chains = counted(curves, rules);
  const auto exponents = [&](const std::vector<Chain>& of, std::span<const size_t> chosen) {
    const Envelope envelope = envelope_over(by_size(curves, of, chosen, !rules.checkpoints), rules);
    return envelope.N ? std::optional(std::pair(envelope.N->exponent, envelope.D->exponent)) : std::nullopt;
  };
  if (noise) {
    std::vector<size_t> all(curves.size());
    std::iota(all.begin(), all.end(), size_t{0});
    return exponent_intervals("envelope redraw", options, [&](const base::RandomStream& random, uint64_t& first) {
      const double sd = draw_deviation(*noise, random);
      std::vector<Chain> shifted = chains;
      for (Chain& chain : shifted) {
        const double shift = sd * random.normal(first++);
        for (Node& node : chain) node.log_loss += shift * std::exp(-node.log_loss);
      }
      return exponents(shifted, all);
    });
  }
  const std::vector<std::vector<size_t>> groups = grouped(curves, [](const Curve& curve) { return curve.group; });
  return exponent_intervals("envelope bootstrap", options, [&](const base::RandomStream& random, uint64_t& first) {
    std::vector<size_t> chosen;
    for (size_t g = 0; g < groups.size(); ++g)
      for (const size_t i : groups[random.below(first++, groups.size())]) chosen.push_back(i);
    return exponents(chains, chosen);
  });
}

}  // namespace varscale::fit
