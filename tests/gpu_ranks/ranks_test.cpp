// Two ranks over NCCL train the model that one rank trains alone. On one GPU that takes NCCL 2.30 or newer
// and NCCL_MULTI_RANK_GPU_ENABLE=1; with two GPUs every rank has its own.
//
//   ./launch/mpirun.sh -n 2 gpu_ranks_test
//   gpu_ranks_test --can-run        says whether two ranks can run here; exit code 0 if so
#include <ATen/ATen.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>
#include <nccl.h>

#include <cmath>
#include <cstdio>
#include <map>

#include "comm/communicator.hpp"
#include "nn/device.hpp"
#include "tests/comm/world.hpp"
#include "tests/parallel/small_model.hpp"

namespace varscale::parallel {
namespace {

using comm::shared_world;
using test::SmallResult;
using test::SmallRun;

constexpr int kSharesADevice = NCCL_VERSION(2, 30, 0);

// Empty: two ranks can run.
std::string why_not() {
  const int devices = c10::cuda::device_count();
  int version = 0;
  ncclGetVersion(&version);
  if (devices == 0) return "no CUDA device is visible to this process";
  if (devices == 1 && version < kSharesADevice)
    return fmt::format(
        "one CUDA device is visible and NCCL {}.{}.{} does not let two ranks share it; put NCCL "
        "2.30 or "
        "newer first in LD_LIBRARY_PATH",
        version / 10000, version / 100 % 100, version % 100);
  return "";
}

at::TensorOptions on_device(at::ScalarType type) {
  return at::TensorOptions(type).device(comm::cuda_device());
}

TEST(Nccl, SumsGathersAndScattersOverTheRanks) {
  comm::Communicator& world = *shared_world();
  const int rank = world.rank(), size = world.size();
  const at::Tensor sum = at::full({1000}, rank + 1, on_device(at::kFloat));
  world.all_reduce(sum, comm::Reduce::kSum, "sum").wait();
  EXPECT_TRUE(sum.eq(size * (size + 1) / 2).all().item<bool>());
  const at::Tensor largest = at::full({5}, rank, on_device(at::kLong));
  world.all_reduce(largest, comm::Reduce::kMax, "largest").wait();
  EXPECT_TRUE(largest.eq(size - 1).all().item<bool>());

  const at::Tensor mine = at::full({7}, rank, on_device(at::kBFloat16));
  const at::Tensor rows = at::empty({size, 7}, on_device(at::kBFloat16));
  world.all_gather(rows, mine, "rows").wait();
  const at::Tensor part = at::empty({3}, on_device(at::kFloat));
  const at::Tensor all = at::arange(3 * size, on_device(at::kFloat));
  world.reduce_scatter(part, all, comm::Reduce::kSum, "part").wait();
  for (int r = 0; r < size; ++r) EXPECT_TRUE(rows[r].eq(r).all().item<bool>()) << r;
  EXPECT_TRUE(at::equal(part, all.slice(0, 3 * rank, 3 * rank + 3) * size));

  const at::Tensor sent = at::full({9}, rank, on_device(at::kFloat));
  world.broadcast(sent, size - 1, "sent").wait();
  EXPECT_TRUE(sent.eq(size - 1).all().item<bool>());
}

SmallResult train(Mode mode, SmallRun run = {.options = {}}) {
  run.options.mode = mode;
  run.options.shards = 1;
  run.device = comm::cuda_device();
  return test::train_small(run, *shared_world());
}

// Relative L2 differences of whole tensors, of which each rank has some rows: {gradients, weights}.
std::pair<double, double> worst_differences(const SmallResult& got, const SmallResult& plain) {
  std::map<std::string, int64_t> row_of;
  for (const Owned& part : plain.owned) row_of.emplace(part.name, row_of.size());
  // Of each tensor the squares of the difference and of the value, for gradient and weight.
  const at::Tensor squares = at::zeros({static_cast<int64_t>(row_of.size()), 2, 2}, at::kDouble);
  for (const Owned& part : got.owned) {
    const int64_t row = row_of.at(part.name);
    const Owned& want = plain.owned[row];
    const auto add = [&](int64_t which, const at::Tensor& mine, const at::Tensor& whole) {
      const at::Tensor rows = whole.slice(part.axis, part.begin, part.end).to(at::kDouble);
      squares[row][which][0] += (mine.to(at::kDouble) - rows).square().sum().cpu();
      squares[row][which][1] += rows.square().sum().cpu();
    };
    add(0, part.gradient, want.gradient);
    add(1, part.weight, want.weight);
  }
  shared_world()->all_reduce(squares, comm::Reduce::kSum, "differences").wait();
  const at::Tensor worst =
      (squares.select(2, 0).sqrt() / squares.select(2, 1).sqrt().clamp_min(1e-7)).amax(0);
  return {worst[0].item<double>(), worst[1].item<double>()};
}

// The bounds of the CPU test: sums of two ranks are taken in another order than one rank's.
TEST(Ranks, EveryModeTrainsThePlainModel) {
  SmallRun alone;
  alone.device = comm::cuda_device();
  const SmallResult plain = test::train_plain(alone);
  for (const Mode mode : {Mode::kReplicated, Mode::kZero2, Mode::kZero3, Mode::kHybrid}) {
    for (const bool recompute : {false, true}) {
      SCOPED_TRACE(fmt::format("mode {} recompute {}", static_cast<int>(mode), recompute));
      const SmallResult got = train(mode, {.options = {.recompute = recompute}});
      ASSERT_EQ(got.losses.size(), plain.losses.size());
      for (size_t i = 0; i < plain.losses.size(); ++i)
        EXPECT_NEAR(got.losses[i] / plain.losses[i], 1, 1e-6) << "step " << i;
      const auto [worst_gradient, worst_weight] = worst_differences(got, plain);
      EXPECT_LE(worst_gradient, 5e-6);
      EXPECT_LE(worst_weight, 1e-5);
      if (shared_world()->rank() == 0)
        fmt::print("mode {} recompute {}: worst gradient {:.1e}, weight {:.1e} (relative)\n",
                   static_cast<int>(mode), recompute, worst_gradient, worst_weight);
    }
  }
}

// The sum of two numbers has one value, whoever adds them.
TEST(Ranks, ShardedGradientsOfTwoRanksAreTheReplicatedOnesBitForBit) {
  if (shared_world()->size() != 2) GTEST_FAIL() << "this test is of two ranks";
  const SmallRun run{.options = {}, .steps = 1};
  const SmallResult replicated = train(Mode::kReplicated, run), sharded = train(Mode::kZero3, run);
  ASSERT_EQ(replicated.owned.size(), sharded.owned.size());
  std::map<std::string, at::Tensor> wanted;
  for (const Owned& part : replicated.owned) wanted[part.name] = part.gradient;
  for (const Owned& part : sharded.owned)
    EXPECT_TRUE(
        at::equal(part.gradient, wanted.at(part.name).slice(part.axis, part.begin, part.end)))
        << part.name;
}

TEST(Ranks, ARepeatedRunIsTheSame) {
  for (const Mode mode : {Mode::kReplicated, Mode::kZero3}) {
    const SmallResult once = train(mode), again = train(mode);
    EXPECT_EQ(once.losses, again.losses);
    for (size_t i = 0; i < once.owned.size(); ++i)
      EXPECT_TRUE(at::equal(once.owned[i].weight, again.owned[i].weight)) << once.owned[i].name;
  }
}

}  // namespace

int run(int argc, char** argv) {
  const std::string reason = why_not();
  if (argc > 1 && std::string(argv[1]) == "--can-run") {
    fmt::print("{}\n", reason.empty() ? "two ranks can run here" : reason);
    return reason.empty() ? 0 : 1;
  }
  testing::InitGoogleTest(&argc, argv);
  if (!reason.empty()) {
    fmt::print(stderr, "gpu_ranks_test: {}; nothing was tested\n", reason);
    return 1;
  }
  nn::repeatable_cuda();
  const auto control = comm::open_world();
  const auto world = comm::open_nccl(*control);
  shared_world() = world.get();
  if (world->rank() != 0) {
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new comm::FailurePrinter(world->rank()));
  }
  const at::Tensor failed = at::full({1}, int64_t{RUN_ALL_TESTS()}, at::kLong);
  control->all_reduce(failed, comm::Reduce::kMax, "verdict").wait();
  return static_cast<int>(failed.item<int64_t>());
}

}  // namespace varscale::parallel

int main(int argc, char** argv) { return varscale::parallel::run(argc, argv); }
