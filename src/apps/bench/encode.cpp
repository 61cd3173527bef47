// var_bench encode.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>

#include "apps/bench/bench.hpp"
#include "apps/bench/options.hpp"
#include "apps/bench/place.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::bench {
namespace {

// By a tokenizer of the published shape with made-up weights; each rank its own images, as var_data tokenize does.
class EncodeBench : public Bench {
 public:
  CLI::App& add_to(CLI::App& app) override {
    auto* command = app.add_subcommand("encode", "images of 256 px to tokens on the CPU, weights made up");
    command->add_option("--images", images_, "of one rank at a time")->check(CLI::PositiveNumber);
    precision_.add_to(*command);
    repeats_.add_to(*command);
    return *command;
  }

  void run() override {
    const Place place("cpu");
    const at::NoGradGuard no_grad;
    tokenizer::Vqvae tokenizer{tokenizer::VqvaeConfig{}};
    tokenizer.initialise(tokenizer::Init::kPublic, 1);
    if (precision_.type() != at::kFloat) tokenizer.encode_in(precision_.type());
    const int64_t side = tokenizer.config().image_side;
    const at::Tensor images_B3XX = at::rand({images_, 3, side, side}, at::TensorOptions(at::kFloat)) * 2 - 1;
    const Times times = place.repeat(repeats_, [&] { tokenizer.encode(images_B3XX); });
    nlohmann::ordered_json json{{"what", "encode"},
                                {"images_a_rank", images_},
                                {"precision", precision_.name},
                                {"ranks", place.ranks().size()},
                                {"threads_a_rank", at::get_num_threads()}};
    json.update(times.json());
    json["images_per_s"] = static_cast<double>(images_ * place.ranks().size()) / times.median();
    place.print(json);
  }

 private:
  int64_t images_ = 4;
  Precision precision_;
  Repeats repeats_{.count = 5, .warmup = 1};
};

}  // namespace

std::unique_ptr<Bench> encode_bench() { return std::make_unique<EncodeBench>(); }

}  // namespace varscale::bench
