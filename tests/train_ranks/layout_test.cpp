// Any number of ranks trains the same model: a group of this launch against one rank alone.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "checkpoint/checkpoint.hpp"
#include "comm/communicator.hpp"
#include "nn/tensor.hpp"
#include "records/run_file.hpp"
#include "tests/comm/world.hpp"
#include "tests/train/tiny_run.hpp"

namespace varscale {
namespace {

comm::Communicator* const& world = comm::shared_world();  // opened by main()

// The key biases have no gradient in exact arithmetic, so AdamW turns their rounding into steps; the model
// has none, but the q scale of a head and label rows without samples are of that kind too: tensors whose
// update is below this share of their norm are compared by absolute difference.
double relative_l2(const at::Tensor& a, const at::Tensor& b) {
  const double difference = (a.to(at::kDouble) - b.to(at::kDouble)).norm().item<double>();
  return difference / std::max(b.to(at::kDouble).norm().item<double>(), 1e-7);
}

TEST(Layout, TrainsTheSameModelOnAnyNumberOfRanks) {
  std::string folder;
  std::unique_ptr<test::ScratchFolder> scratch;
  if (world->rank() == 0) {
    scratch = std::make_unique<test::ScratchFolder>("layout");
    folder = scratch->path().string();
    test::write_tiny_tokens(scratch->path() / "tokens.h5");
  }
  folder = world->broadcast_bytes(folder, 0, "folder");
  const base::StopSignals stop;
  const records::TokenFile tokens(std::filesystem::path(folder) / "tokens.h5");
  const train::TrainJob together = test::tiny_job(tokens, std::filesystem::path(folder) / "together");
  ASSERT_EQ(train::train(together, tokens, *world, stop).step, 20);

  if (world->rank() == 0) {
    const train::TrainJob alone = test::tiny_job(tokens, std::filesystem::path(folder) / "alone");
    train::train(alone, tokens, *comm::make_self(), stop);
    const records::RunTables a = records::read_run(together.folder / "run.h5");
    const records::RunTables b = records::read_run(alone.folder / "run.h5");
    ASSERT_EQ(a.steps.size(), b.steps.size());
    double worst_loss = 0, worst_norm = 0, worst_weight = 0;
    for (size_t i = 0; i < a.steps.size(); ++i) {
      worst_loss = std::max(worst_loss, std::abs(a.steps[i].loss_mean / b.steps[i].loss_mean - 1));
      worst_norm = std::max(worst_norm, std::abs(a.steps[i].grad_norm / b.steps[i].grad_norm - 1));
    }
    const checkpoint::CheckpointFolder at_a(together.folder / "checkpoints", 2), at_b(alone.folder / "checkpoints", 2);
    std::map<std::string, at::Tensor> want;
    for (const nn::NamedTensor& named : at_b.tensors(20)) want[named.name] = named.tensor;
    for (const nn::NamedTensor& named : at_a.tensors(20)) {
      const std::string& name = named.name;
      if (!name.starts_with("param.")) continue;
      const double error = relative_l2(named.tensor, want.at(name));
      worst_weight = std::max(worst_weight, error);
      EXPECT_LT(error, 1e-5) << name;
    }
    EXPECT_LT(worst_loss, 1e-6);
    EXPECT_LT(worst_norm, 5e-6);
    fmt::print("layout {} ranks: worst loss {:.1e}, gradient norm {:.1e}, weights {:.1e} (relative)\n", world->size(),
               worst_loss, worst_norm, worst_weight);
  }
  world->barrier("end of the test");
}

}  // namespace
}  // namespace varscale
