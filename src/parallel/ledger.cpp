#include "parallel/ledger.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "nn/functional.hpp"

namespace varscale::parallel {

Cut::Cut(const std::vector<int64_t>& shape, int64_t shards) : shards(shards) {
  const auto longer =
      std::find_if(shape.begin(), shape.end(), [](int64_t size) { return size > 1; });
  axis = longer == shape.end() ? 0 : longer - shape.begin();
  rows = shape.empty() ? 1 : shape[axis];
  const int64_t elements =
      std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  row_elements = elements / rows;
  chunk_rows = (rows + shards - 1) / shards;
}

int64_t Owned::first_element() const {
  int64_t row_elements = 1;
  for (size_t i = static_cast<size_t>(axis) + 1; i < shape.size(); ++i) row_elements *= shape[i];
  return begin * row_elements;  // the axes before are of length 1
}

void Countdown::reset() {
  std::fill(seen_.begin(), seen_.end(), false);
  left_ = seen_.size();
}

bool Countdown::arrived(size_t leaf) {
  if (seen_[leaf]) return false;
  seen_[leaf] = true;
  return --left_ == 0;
}

std::vector<size_t> Countdown::missing() const {
  std::vector<size_t> missing;
  for (size_t i = 0; i < seen_.size(); ++i) {
    if (!seen_[i]) missing.push_back(i);
  }
  return missing;
}

void check_complete(const Unit& unit, const Countdown& countdown) {
  if (countdown.complete()) return;
  std::vector<std::string> names;
  for (const size_t i : countdown.missing()) names.push_back(unit.leaves[i].name);
  VARSCALE_CHECK(false, "unit {}: backward left no gradient on {}", unit.name,
                 fmt::join(names, ", "));
}

Tensor sum_of_squares(const std::vector<Owned>& owned) {
  Tensor sum = at::zeros({}, owned.at(0).gradient.options().dtype(at::kDouble));
  for (const Owned& part : owned) sum.add_(nn::sum_of_squares(part.gradient));
  return sum;
}

Mode mode_named(std::string_view name) {
  if (name == "replicated") return Mode::kReplicated;
  if (name == "zero2") return Mode::kZero2;
  if (name == "zero3") return Mode::kZero3;
  VARSCALE_CHECK(name == "hybrid", "no mode is named {}", name);
  return Mode::kHybrid;
}

Share share_of(int64_t batch, int rank, int size) {
  return {batch * rank / size, batch * (rank + 1) / size};
}

MicroBatches::MicroBatches(int64_t batch, int64_t most_rows, const comm::Communicator& world)
    : share_(share_of(batch, world.rank(), world.size())) {
  const int64_t largest = (batch + world.size() - 1) / world.size();
  micro_ = most_rows > 0 ? most_rows : largest;
  passes_ = (largest + micro_ - 1) / micro_;
}

Share MicroBatches::rows(int64_t pass) const {
  const int64_t begin = std::min(share_.end, share_.begin + pass * micro_);
  return {begin, std::min(share_.end, begin + micro_)};
}

std::function<Tensor(int64_t, const std::vector<Tensor>&, const Parallel::Body&)> block_runner(Parallel& parallel) {
  return [&parallel](int64_t index, const std::vector<Tensor>& inputs, const Parallel::Body& body) {
    return parallel.run(static_cast<size_t>(index) + 1, inputs, body);
  };
}

nn::NamedTensors owned_weights(const Parallel& parallel) {
  nn::NamedTensors weights;
  for (const Owned& part : parallel.owned()) weights.push_back({part.name, part.weight});
  return weights;
}

std::vector<Tensor> owned_gradients(const Parallel& parallel) {
  std::vector<Tensor> gradients;
  for (const Owned& part : parallel.owned()) gradients.push_back(part.gradient);
  return gradients;
}

std::unique_ptr<Parallel> make_parallel(const std::vector<Unit>& units, comm::Communicator& world,
                                        const Options& options) {
  VARSCALE_CHECK(!units.empty(), "a model without units");
  return options.mode == Mode::kReplicated ? make_replicated(units, world, options)
                                           : make_sharded(units, world, options);
}

}  // namespace varscale::parallel
