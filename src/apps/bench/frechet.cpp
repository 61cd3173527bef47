// var_bench frechet.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>

#include "apps/bench/bench.hpp"
#include "apps/bench/options.hpp"
#include "apps/bench/place.hpp"
#include "evaluate/frechet.hpp"

namespace varscale::bench {
namespace {

// Of two Gaussians that have extent in every direction, for their images are more than their features.
class FrechetBench : public Bench {
 public:
  CLI::App& add_to(CLI::App& app) override {
    auto* command = app.add_subcommand("frechet", "a Fréchet distance, once its statistics are known");
    command->add_option("--features", features_, "of an image")->check(CLI::PositiveNumber);
    repeats_.add_to(*command);
    return *command;
  }

  void run() override {
    const Place place("cpu");
    evaluate::GaussianStatistics a(features_), b(features_);
    for (evaluate::GaussianStatistics* statistics : {&a, &b})
      statistics->add(at::randn({2 * features_, features_}, at::kDouble));
    const evaluate::Gaussian one = a.gaussian(), other = b.gaussian();
    nlohmann::ordered_json json{{"what", "frechet"},
                                {"features", features_},
                                {"ranks", place.ranks().size()},
                                {"threads_a_rank", at::get_num_threads()}};
    json.update(place.repeat(repeats_, [&] { evaluate::frechet_distance(one, other); }).json());
    place.print(json);
  }

 private:
  int64_t features_ = 2048;
  Repeats repeats_;
};

}  // namespace

std::unique_ptr<Bench> frechet_bench() { return std::make_unique<FrechetBench>(); }

}  // namespace varscale::bench
