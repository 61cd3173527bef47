// The Nccl kind alone in its group: the library is opened, every collective runs on its stream.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <gtest/gtest.h>

#include "comm/communicator.hpp"
#include "tests/support/hash_weights.hpp"

namespace varscale::comm {
namespace {

at::TensorOptions on_device(at::ScalarType type) {
  return at::TensorOptions(type).device(cuda_device());
}

struct Nccl : testing::Test {
  std::unique_ptr<Communicator> self = make_self(), world = open_nccl(*self);
};

TEST_F(Nccl, MakesTheDeviceOfThisRankTheCurrentOne) {
  EXPECT_EQ(c10::cuda::current_device(), cuda_device().index());
  EXPECT_EQ(at::empty({1}, at::TensorOptions(at::kCUDA)).device(), cuda_device());
}

TEST_F(Nccl, AllReduceOfOneIsTheTensorItself) {
  for (const auto type : {at::kFloat, at::kDouble, at::kLong}) {
    for (const Reduce op : {Reduce::kSum, Reduce::kMin, Reduce::kMax}) {
      const Tensor want = (100 * test::hash_v("x", {1000})).to(type);
      const Tensor x = want.to(cuda_device());
      world->all_reduce(x, op, "x").wait();
      EXPECT_TRUE(at::equal(x.cpu(), want));
    }
  }
}

TEST_F(Nccl, GatherScatterAndBroadcastMoveTheirRows) {
  const Tensor a = test::hash_v("a", {1000}).to(on_device(at::kFloat));
  const Tensor b = test::hash_v("b", {77}).to(on_device(at::kBFloat16));
  const Tensor whole_a = at::empty_like(a), whole_b = at::empty_like(b);
  world->all_gather({{whole_a, a}, {whole_b, b}}, "unit").wait();
  EXPECT_TRUE(at::equal(whole_a, a));
  EXPECT_TRUE(at::equal(whole_b, b));
  const Tensor part = at::empty_like(a), other = at::empty_like(a);
  world->reduce_scatter({{part, a}, {other, whole_a}}, Reduce::kSum, "unit").wait();
  EXPECT_TRUE(at::equal(part, a));
  EXPECT_TRUE(at::equal(other, a));
  const Tensor sent = b.clone();
  world->broadcast(sent, 0, "weights").wait();
  EXPECT_TRUE(at::equal(sent, b));
}

TEST_F(Nccl, ARowOfTheOutputMayBeTheInput) {
  const Tensor x = test::hash_v("x", {64}).to(on_device(at::kFloat)), want = x.clone();
  world->all_gather(x, x.slice(0, 0, 64), "in place").wait();
  EXPECT_TRUE(at::equal(x, want));
}

TEST_F(Nccl, CpuTensorsGoToTheControlGroup) {
  const Tensor x = at::ones({3});
  world->all_reduce(x, Reduce::kSum, "flags").wait();
  world->barrier("end");
  EXPECT_EQ(world->broadcast_bytes("text", 0, "text"), "text");
  EXPECT_TRUE(at::equal(x, at::ones({3})));
}

// The input is still being computed when the call is made, and the output is read as soon as the stream
// allows. Milliseconds of work on a large matrix stand before each call.
TEST_F(Nccl, FollowsTheCallersStreamAndTheCallerFollowsIt) {
  const Tensor matrix = at::full({4096, 4096}, 1.0 / 4096, on_device(at::kFloat));
  for (int round = 1; round <= 5; ++round) {
    Tensor x = at::full({4096, 4096}, round, on_device(at::kFloat));
    for (int i = 0; i < 4; ++i) x = at::mm(matrix, x);  // each row is the mean: it stays
    const Tensor out = at::zeros_like(x);
    world->all_gather(out, x, "x").wait();
    EXPECT_NEAR(out.mean(at::kDouble).item<double>(), round, 1e-3);
  }
}

// A call that is given an event does not wait for work queued after it.
TEST_F(Nccl, FollowsAnEventWhereOneIsGiven) {
  const Tensor x = test::hash_v("x", {1 << 16}).to(on_device(at::kFloat));
  c10::Event ready(at::kCUDA);
  ready.record(c10::cuda::getCurrentCUDAStream().unwrap());
  const Tensor matrix = at::full({4096, 4096}, 1.0 / 4096, on_device(at::kFloat));
  Tensor later = matrix;
  for (int i = 0; i < 20; ++i) later = at::mm(matrix, later);
  const Tensor out = at::zeros_like(x);
  world->all_gather(out, x, "x", &ready).wait();
  EXPECT_TRUE(at::equal(out, x));
}

TEST_F(Nccl, HundredsOfCallsOfSeveralGroupsPassTheirDeadline) {
  world->set_deadline(30);
  const auto shards = world->create_group({0}, "shards"),
             copies = world->create_group({0}, "copies");
  const Tensor x = at::ones({1 << 18}, on_device(at::kFloat)), out = at::empty_like(x);
  for (int i = 0; i < 100; ++i) {
    Work gather = shards->all_gather(out, x, "gather");
    Work sum = copies->all_reduce(x, Reduce::kSum, "sum");
    gather.wait();
    { const Work dropped = world->broadcast(x, 0, "dropped"); }
    sum.wait();
  }
  EXPECT_TRUE(at::equal(out, x));
  world->barrier("the same calls on all ranks");
}

TEST_F(Nccl, CanBeOpenedAgainAfterItWasClosed) {
  for (int i = 0; i < 3; ++i) {
    world.reset();
    world = open_nccl(*self);
    const Tensor x = at::ones({8}, on_device(at::kFloat));
    world->all_reduce(x, Reduce::kSum, "x").wait();
    EXPECT_EQ(x.sum().item<float>(), 8);
  }
}

TEST_F(Nccl, AfterAbortEveryCallThrowsIt) {
  const Tensor x = at::ones({8}, on_device(at::kFloat));
  world->abort("enough", 1);
  EXPECT_THROW(std::ignore = world->all_reduce(x, Reduce::kSum, "x"), CommError);
  EXPECT_THROW(world->barrier("end"), CommError);
}

}  // namespace
}  // namespace varscale::comm
