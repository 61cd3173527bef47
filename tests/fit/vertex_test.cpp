#include "fit/vertex.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::fit {
namespace {

// Loss 4.3 at the best rate and 0.02 more at e times it.
double loss_at(double rate, double best = 3e-4) { return 4.3 + 0.02 * std::pow(std::log(rate / best), 2); }

std::vector<Observation> grid_of(std::initializer_list<double> rates, double best = 3e-4) {
  std::vector<Observation> grid;
  for (double rate : rates) grid.push_back({rate, loss_at(rate, best)});
  return grid;
}

TEST(Vertex, IsThatOfTheParabolaThroughThreePoints) {
  for (const double best : {2.2e-4, 3e-4, 3.9e-4}) {
    const Vertex vertex = vertex_of(grid_of({1.5e-4, 3e-4, 6e-4}, best));
    EXPECT_NEAR(vertex.x / best, 1, 1e-9);
    EXPECT_NEAR(vertex.y, 4.3, 1e-12);
    EXPECT_FALSE(vertex.at_edge);
  }
  // Rates need not be evenly spaced.
  EXPECT_NEAR(vertex_of(grid_of({1e-4, 2.5e-4, 9e-4})).x, 3e-4, 1e-12);
}

TEST(Vertex, TakesTheThreePointsAroundTheLowest) {
  std::vector<Observation> grid = grid_of({0.75e-4, 1.5e-4, 3e-4, 6e-4, 12e-4}, 3.3e-4);
  grid.front().y += 1, grid.back().y += 2;  // far out the loss is no parabola
  const Vertex vertex = vertex_of(grid);
  EXPECT_NEAR(vertex.x, 3.3e-4, 1e-12);
  EXPECT_THAT(vertex.at, testing::ElementsAre(1.5e-4, 3e-4, 6e-4));
}

TEST(Vertex, AveragesRepeatedSeeds) {
  std::vector<Observation> grid = grid_of({1.5e-4, 3e-4, 6e-4}, 2.5e-4);
  for (Observation& p : grid) p.y += 0.003;
  for (const Observation& p : grid_of({1.5e-4, 3e-4, 6e-4}, 2.5e-4)) grid.push_back({p.x, p.y - 0.003});
  EXPECT_NEAR(vertex_of(grid).x, 2.5e-4, 1e-12);
  EXPECT_NEAR(vertex_of(grid).y, 4.3, 1e-12);
}

TEST(Vertex, FlagsABestThatTheGridDoesNotEnclose) {
  for (const double best : {1e-4, 12e-4}) {
    const Vertex vertex = vertex_of(grid_of({1.5e-4, 3e-4, 6e-4}, best));
    EXPECT_TRUE(vertex.at_edge);
    EXPECT_EQ(vertex.x, best < 3e-4 ? 1.5e-4 : 6e-4);
    EXPECT_EQ(vertex.y, loss_at(vertex.x, best));
    EXPECT_EQ(vertex.read(grid_of({1.5e-4, 3e-4, 6e-4}, best)), vertex.y);
  }
  EXPECT_TRUE(vertex_of(std::vector<Observation>{{1, 2}, {2, 2}, {4, 2}}).at_edge);  // flat: nothing is enclosed
}

TEST(Vertex, ReadsAnotherValueAtItsRate) {
  const Vertex vertex = vertex_of(grid_of({1.5e-4, 3e-4, 6e-4}, 3.5e-4));
  // A parabola of its own, whose value at the vertex of the first is known.
  std::vector<Observation> errors;
  for (const double rate : {1.5e-4, 3e-4, 6e-4}) errors.push_back({rate, 0.9 + 0.01 * std::pow(std::log(rate / 2e-4), 2)});
  EXPECT_NEAR(vertex.read(errors), 0.9 + 0.01 * std::pow(std::log(3.5 / 2), 2), 1e-12);
}

TEST(Vertex, RefusesWhatIsNoGrid) {
  EXPECT_THROW(vertex_of(grid_of({1e-4, 2e-4})), base::UserError);
  EXPECT_THROW(vertex_of(std::vector<Observation>{{1, 2}, {1, 3}, {2, 1}}), base::UserError);
  EXPECT_THROW(vertex_of(std::vector<Observation>{{0, 2}, {1, 3}, {2, 1}}), base::UserError);
  EXPECT_THROW(vertex_of(std::vector<Observation>{{1, std::numeric_limits<double>::quiet_NaN()}, {2, 3}, {3, 1}}),
               base::UserError);
}

TEST(GridNoise, PoolsSeedsBeforeWhatParabolasLeaveOver) {
  const std::vector<Observation> three = grid_of({1.5e-4, 3e-4, 6e-4});
  EXPECT_FALSE(grid_noise(std::vector{three, three}));
  std::vector<Observation> five = grid_of({0.75e-4, 1.5e-4, 3e-4, 6e-4, 12e-4});
  // The third difference that no parabola of five even points has: 1, -2, 0, 2, -1 over sqrt(10).
  const double third[] = {1, -2, 0, 2, -1};
  for (size_t i = 0; i < 5; ++i) five[i].y += 0.004 * third[i];
  const auto of_parabola = grid_noise(std::vector{three, five});
  ASSERT_TRUE(of_parabola);
  EXPECT_NEAR(of_parabola->sd, 0.004 * std::sqrt(10.0 / 2), 1e-9);
  EXPECT_EQ(of_parabola->degrees_of_freedom, 2);
  EXPECT_EQ(of_parabola->source, "parabolas of the rates");
  std::vector<Observation> seeds = three;
  seeds.push_back({3e-4, three[1].y + 0.002});
  const auto of_seeds = grid_noise(std::vector{five, seeds});
  ASSERT_TRUE(of_seeds);
  EXPECT_NEAR(of_seeds->sd, 0.002 / std::sqrt(2.0), 1e-12);
  EXPECT_EQ(of_seeds->degrees_of_freedom, 1);
  EXPECT_EQ(of_seeds->source, "repeated seeds");
}

// The deviations drawn have the spread that real sweeps of the same noise have.
TEST(RedrawVertices, SpreadAsRepeatedSweepsDo) {
  constexpr double kNoise = 0.002;
  constexpr int kSweeps = 4000;
  const std::vector<Observation> truth = grid_of({1.5e-4, 3e-4, 6e-4}, 4e-4);
  const auto spread = [](const std::vector<double>& values) {
    double mean = 0, sum = 0;
    for (double v : values) mean += v / static_cast<double>(values.size());
    for (double v : values) sum += (v - mean) * (v - mean);
    return std::sqrt(sum / static_cast<double>(values.size()));
  };
  std::vector<double> real, drawn, read;
  const Redraw redraw = redraw_vertices({truth, truth}, Noise{kNoise, 10, "known"});
  const Redraw reread = redraw_read({truth}, {vertex_of(truth)}, Noise{kNoise, 10, "known"});
  for (int s = 0; s < kSweeps; ++s) {
    const base::RandomStream random(1, "vertex test", static_cast<uint64_t>(s));
    std::vector<Observation> sweep = truth;
    for (size_t i = 0; i < sweep.size(); ++i) sweep[i].y += kNoise * random.normal(i);
    real.push_back(vertex_of(sweep).y);
    drawn.push_back(redraw.deviation(1, kNoise, random));
    read.push_back(reread.deviation(0, kNoise, random));
  }
  // 4,000 draws know a deviation to 1.1 %, and a ratio of two to 1.6 %: three times that.
  EXPECT_NEAR(spread(drawn) / spread(real), 1, 0.05);
  double squares = 0;
  for (double weight : vertex_of(truth).weight) squares += weight * weight;
  EXPECT_NEAR(spread(read) / (kNoise * std::sqrt(squares)), 1, 0.035);
  // Two grids are drawn apart.
  const base::RandomStream random(1, "vertex test", 0);
  EXPECT_NE(redraw.deviation(0, kNoise, random), redraw.deviation(1, kNoise, random));
}

TEST(Bootstrap, CarriesDeviationsOfThePointsIntoTheConstants) {
  std::vector<Observation> points;
  std::vector<std::vector<Observation>> grids;
  for (int64_t depth = 1; depth <= 9; ++depth) {
    const double n = 1e5 * std::pow(static_cast<double>(depth), 3);
    std::vector<Observation> grid = grid_of({1.5e-4, 3e-4, 6e-4});
    for (Observation& p : grid) p.y += 2.3 * std::pow(n, -0.2);
    points.push_back({n, vertex_of(grid).y});
    grids.push_back(std::move(grid));
  }
  const PowerFit fit = fit_power_law(points, EFree{});
  const auto width = [&](double sd) {
    const Bootstrap bootstrap =
        bootstrap_fit(points, fit, redraw_vertices(grids, Noise{sd, 1000, "known"}), {.resamples = 400});
    EXPECT_EQ(bootstrap.method, BootstrapMethod::kParametric);  // though there are nine sizes
    return bootstrap.alpha().high - bootstrap.alpha().low;
  };
  EXPECT_GT(width(1e-4), 0);
  // Small deviations go into the exponent in proportion.
  EXPECT_NEAR(width(2e-4) / width(1e-4), 2, 0.1);
}

// Tuned sweeps of five sizes, three rates and two seeds around best rates that differ from size to size.
TEST(Bootstrap, OfTunedPointsHoldsTheTruthAsOftenAsItSays) {
  constexpr int kSweeps = 150;
  int held = 0;
  for (int s = 0; s < kSweeps; ++s) {
    const base::RandomStream random(3, "tuned sweeps", static_cast<uint64_t>(s));
    uint64_t draw = 0;
    std::vector<Observation> points;
    std::vector<std::vector<Observation>> grids;
    for (int depth = 1; depth <= 5; ++depth) {
      const double n = 1e5 * depth * depth * depth;
      const double best = 3e-4 * std::exp(0.8 * (random.uniform_double(1 << 20 | depth) - 0.5));
      std::vector<Observation> grid;
      for (const double rate : {1.5e-4, 3e-4, 6e-4})
        for (int seed = 0; seed < 2; ++seed)
          grid.push_back({rate, loss_at(rate, best) + 2.3 * std::pow(n, -0.2) + 0.002 * random.normal(draw++)});
      points.push_back({n, vertex_of(grid).y});
      grids.push_back(std::move(grid));
    }
    const auto noise = grid_noise(grids);
    ASSERT_TRUE(noise);
    const PowerFit fit = fit_power_law(points, EFree{});
    const Bootstrap bootstrap = bootstrap_fit(points, fit, redraw_vertices(grids, *noise),
                                              {.resamples = 200, .seed = static_cast<uint64_t>(s)});
    held += bootstrap.alpha().contains(0.2);
  }
  // 90 % of 150 is 135, with a deviation of 3.7: twice that, and 2 % for the optima that fall on an edge.
  EXPECT_NEAR(held, 135, 10);
}

}  // namespace
}  // namespace varscale::fit
