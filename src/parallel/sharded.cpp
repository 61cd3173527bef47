// ZeRO-3, ZeRO-2 and hybrid: every rank of a shard group owns some rows of every parameter.
//
// Life of a block unit in one micro-batch: its weights are gathered into a buffer (prefetched while the
// unit before computes), lent to the leaves, and taken back after forward; gathered again before its
// backward, taken back when its last leaf has its gradient, and that gradient scattered to the owners
// while the next unit's backward runs. Two buffers each, by the parity of the unit, are all there is.
#include <ATen/ATen.h>

#include <array>
#include <optional>

#include "nn/storage.hpp"
#include "parallel/autograd.hpp"
#include "parallel/ledger.hpp"

namespace varscale::parallel {

namespace {

// Bytes. The products of cuBLAS depend on the alignment of their operands up to this, and leaves in a
// buffer are to give the same bits as leaves of their own; vector loads of a CPU take 64.
constexpr int64_t kAlign = 256;

int64_t aligned(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

std::vector<int64_t> with_rows(std::vector<int64_t> shape, int64_t axis, int64_t rows) {
  if (!shape.empty()) shape[static_cast<size_t>(axis)] = rows;
  return shape;
}

// Where the leaves of a unit lie: in the gathered buffer, in the whole gradient, and in the shard.
struct Layout {
  std::vector<Cut> cuts;
  std::vector<int64_t> weight_byte, gradient_element, shard_element;
  int64_t weight_bytes = 0, gradient_elements = 0, shard_elements = 0;

  Layout(const Unit& unit, int64_t shards) {
    for (const nn::NamedTensor& leaf : unit.leaves) {
      const Cut cut(leaf.tensor.sizes().vec(), shards);
      const auto element = static_cast<int64_t>(leaf.tensor.element_size());
      weight_byte.push_back(weight_bytes);
      gradient_element.push_back(gradient_elements);
      shard_element.push_back(shard_elements);
      weight_bytes += aligned(cut.padded_elements() * element);
      gradient_elements += aligned(cut.padded_elements() * 4) / 4;
      shard_elements += aligned(cut.chunk_elements() * 4) / 4;
      cuts.push_back(cut);
    }
  }
};

struct UnitState {
  UnitState(const Unit& unit, int64_t shards)
      : unit(unit), layout(unit, shards), countdown(unit.leaves.size()) {}
  Unit unit;
  Layout layout;
  Countdown countdown;
  Tensor shard_weight, shard_gradient;  // float32, flat
  enum class Weights { kAway, kComing, kHere } weights = Weights::kAway;
  std::optional<comm::Work> gather;
  bool backward_begun = false;
  std::optional<comm::Work> scatter;  // of the gradient, under way
  bool scatter_due = false;           // complete, not yet begun
};

class Sharded final : public Parallel {
 public:
  Sharded(const std::vector<Unit>& units, comm::Communicator& world, const Options& options)
      : options_(options), clock_(units.at(0).leaves.at(0).tensor.device()) {
    const int size = world.size();
    int shards = size;
    if (options.mode == Mode::kHybrid) {
      shards = options.shards;
      VARSCALE_CHECK(shards >= 1 && size % shards == 0,
                     "hybrid: groups of {} ranks do not divide {} ranks", shards, size);
      const int group = world.rank() / shards, place = world.rank() % shards;
      std::vector<int> inside, across;
      for (int r = 0; r < shards; ++r) inside.push_back(group * shards + r);
      for (int r = place; r < size; r += shards) across.push_back(r);
      owned_inside_ = world.create_group(inside, "shards");
      across_ = world.create_group(across, "replicas");
    }
    inside_ = owned_inside_ ? owned_inside_.get() : &world;
    for (const Unit& unit : units) units_.emplace_back(std::make_unique<UnitState>(unit, shards));
    const Tensor& any = units.at(0).leaves.at(0).tensor;
    float_ = at::TensorOptions(at::kFloat).device(any.device());
    bytes_ = at::TensorOptions(at::kByte).device(any.device());
    int64_t block_bytes = 0, block_elements = 0, block_shard = 0;
    for (size_t u = 0; u < units_.size(); ++u) {
      const Layout& layout = units_[u]->layout;
      units_[u]->shard_weight = at::zeros({layout.shard_elements}, float_);
      units_[u]->shard_gradient = at::zeros({layout.shard_elements}, float_);
      own(*units_[u]);
      if (u == 0) continue;
      block_bytes = std::max(block_bytes, layout.weight_bytes);
      block_elements = std::max(block_elements, layout.gradient_elements);
      block_shard = std::max(block_shard, layout.shard_elements);
    }
    const Layout& root = units_[0]->layout;
    root_weights_ = at::empty({root.weight_bytes}, bytes_);
    root_gradient_ = at::empty({root.gradient_elements}, float_);
    root_scattered_ = at::empty({root.shard_elements}, float_);
    const size_t blocks = units_.size() - 1;
    const size_t gathered = options.mode == Mode::kZero2 ? blocks : std::min<size_t>(2, blocks);
    for (size_t i = 0; i < gathered; ++i)
      block_weights_.push_back(at::empty({block_bytes}, bytes_));
    for (size_t i = 0; i < std::min<size_t>(2, blocks); ++i) {
      block_gradients_.push_back(at::empty({block_elements}, float_));
      block_scattered_.push_back(at::empty({block_shard}, float_));
    }
    for (size_t u = 0; u < units_.size(); ++u) {
      std::vector<Tensor> leaves;
      for (const nn::NamedTensor& leaf : units_[u]->unit.leaves) leaves.push_back(leaf.tensor);
      hooks_.emplace_back(leaves, [this, u](size_t leaf) { arrived(u, leaf); });
    }
  }

  ~Sharded() override {
    for (const auto& unit : units_) {
      for (const nn::NamedTensor& leaf : unit->unit.leaves) nn::reclaim_storage(leaf.tensor);
    }
  }

  void begin_step() override {
    for (const auto& unit : units_) unit->shard_gradient.zero_();
  }

  void begin_micro(bool last) override {
    last_ = last;
    for (const auto& unit : units_) {
      unit->countdown.reset();
      unit->backward_begun = false;
    }
    acquire(0);
    give_gradients(0);
  }

  Tensor run(size_t u, const std::vector<Tensor>& inputs, const Body& body) override {
    acquire(u);
    if (options_.overlap && u + 1 < units_.size()) start_gather(u + 1);
    if (!at::GradMode::is_enabled()) {
      Tensor y = body(inputs);
      release(u);
      return y;
    }
    Tensor y = options_.recompute ? recomputed(inputs, body) : body(inputs);
    y = before_backward(y, [this, u] { before_unit(u); });
    // The last block's backward comes at once.
    if (options_.mode != Mode::kZero2 && u + 1 < units_.size()) release(u);
    return y;
  }

  void finish_backward() override {
    for (const auto& unit : units_) check_complete(unit->unit, unit->countdown);
    start_scatter(0);
    for (size_t u = units_.size(); u-- > 0;) retire(u);
    if (!last_ || !across_) return;
    for (comm::Work& work : across_pending_) clock_.wait(work);
    across_pending_.clear();
  }

  void begin_forward() override { acquire(0); }
  void end_forward() override {
    for (size_t u = 1; u < units_.size(); ++u) release(u);
  }

  void weights_changed() override {
    for (size_t u = 0; u < units_.size(); ++u) release(u);
  }

  const std::vector<Owned>& owned() const noexcept override { return owned_; }

  // The replicas of a shard divide the tensors.
  bool saves(size_t i) const noexcept override {
    return !across_ ||
           static_cast<int>(i % static_cast<size_t>(across_->size())) == across_->rank();
  }

  Held held() const override {
    Held held;
    for (const auto& unit : units_) {
      held.weights += static_cast<int64_t>(unit->shard_weight.nbytes());
      held.gradients += static_cast<int64_t>(unit->shard_gradient.nbytes());
    }
    auto add = [](int64_t& sum, const std::vector<Tensor>& tensors) {
      for (const Tensor& tensor : tensors) sum += static_cast<int64_t>(tensor.nbytes());
    };
    add(held.gathered, block_weights_);
    add(held.gathered, {root_weights_});
    add(held.reduce_buffers, block_gradients_);
    add(held.reduce_buffers, block_scattered_);
    add(held.reduce_buffers, {root_gradient_, root_scattered_});
    held.peak_gathered_blocks = peak_blocks_;
    return held;
  }

  Tensor gradient_norm_squared() override {
    Tensor sum = sum_of_squares(owned_);
    comm::Work work = inside_->all_reduce(sum, comm::Reduce::kSum, "gradient norm");
    clock_.wait(work);
    return sum;
  }

  std::vector<nn::Interval> take_waits() override { return clock_.take(); }

 private:
  using Weights = UnitState::Weights;

  void own(UnitState& unit) {
    const int64_t shard = inside_->rank();
    for (size_t i = 0; i < unit.unit.leaves.size(); ++i) {
      const nn::NamedTensor& leaf = unit.unit.leaves[i];
      const Cut& cut = unit.layout.cuts[i];
      const std::vector<int64_t> shape = leaf.tensor.sizes().vec();
      const int64_t begin = cut.begin(shard), end = cut.end(shard);
      auto part = [&](const Tensor& flat) {
        const int64_t at = unit.layout.shard_element[i];
        return flat.slice(0, at, at + (end - begin) * cut.row_elements)
            .view(with_rows(shape, cut.axis, end - begin));
      };
      owned_.push_back({leaf.name, shape, cut.axis, begin, end, part(unit.shard_weight),
                        part(unit.shard_gradient)});
    }
  }

  const Tensor& weight_buffer(size_t u) const {
    return u == 0 ? root_weights_ : block_weights_[(u - 1) % block_weights_.size()];
  }
  const Tensor& gradient_buffer(size_t u) const {
    return u == 0 ? root_gradient_ : block_gradients_[(u - 1) % block_gradients_.size()];
  }
  const Tensor& scattered_buffer(size_t u) const {
    return u == 0 ? root_scattered_ : block_scattered_[(u - 1) % block_scattered_.size()];
  }
  // The block that has this unit's buffer, if any.
  std::optional<size_t> tenant(size_t u) const {
    if (u == 0) return std::nullopt;
    for (size_t other = 1; other < units_.size(); ++other) {
      if (other != u && units_[other]->weights != Weights::kAway &&
          weight_buffer(other).data_ptr() == weight_buffer(u).data_ptr())
        return other;
    }
    return std::nullopt;
  }

  void start_gather(size_t u) {
    UnitState& unit = *units_[u];
    if (unit.weights != Weights::kAway || tenant(u)) return;
    at::NoGradGuard no_grad;
    const int64_t shard = inside_->rank();
    const Tensor& buffer = weight_buffer(u);
    std::vector<comm::Gather> parts;
    for (size_t i = 0; i < unit.unit.leaves.size(); ++i) {
      const Tensor& leaf = unit.unit.leaves[i].tensor;
      const Cut& cut = unit.layout.cuts[i];
      const int64_t begin = unit.layout.weight_byte[i];
      const int64_t bytes = cut.padded_elements() * static_cast<int64_t>(leaf.element_size());
      const Tensor whole = buffer.slice(0, begin, begin + bytes).view(leaf.scalar_type());
      const int64_t chunk = cut.chunk_elements();
      const Tensor mine = whole.slice(0, shard * chunk, (shard + 1) * chunk);
      const int64_t at = unit.layout.shard_element[i];
      mine.copy_(unit.shard_weight.slice(0, at, at + chunk));  // to the compute dtype
      parts.push_back({whole, mine});
    }
    unit.gather = inside_->all_gather(std::move(parts), unit.unit.name);
    unit.weights = Weights::kComing;
    if (u == 0) return;
    int64_t here = 0;
    for (size_t other = 1; other < units_.size(); ++other)
      here += static_cast<int64_t>(units_[other]->weights != Weights::kAway);
    peak_blocks_ = std::max(peak_blocks_, here);
  }

  void acquire(size_t u) {
    UnitState& unit = *units_[u];
    if (unit.weights == Weights::kHere) return;
    start_gather(u);
    VARSCALE_CHECK(unit.weights == Weights::kComing, "unit {}: its buffer is taken by unit {}",
                   unit.unit.name, units_[tenant(u).value_or(0)]->unit.name);
    clock_.wait(*unit.gather);
    unit.gather.reset();
    auto* buffer = static_cast<std::byte*>(weight_buffer(u).data_ptr());
    for (size_t i = 0; i < unit.unit.leaves.size(); ++i) {
      const Tensor& leaf = unit.unit.leaves[i].tensor;
      nn::lend_storage(leaf, buffer + unit.layout.weight_byte[i],
                       static_cast<size_t>(unit.layout.cuts[i].padded_elements()) *
                           leaf.element_size());
    }
    unit.weights = Weights::kHere;
  }

  void release(size_t u) {
    UnitState& unit = *units_[u];
    if (unit.weights == Weights::kAway) return;
    if (unit.gather) {  // prefetched and not used: the buffer is free when it has come
      clock_.wait(*unit.gather);
      unit.gather.reset();
    }
    for (const nn::NamedTensor& leaf : unit.unit.leaves) nn::reclaim_storage(leaf.tensor);
    unit.weights = Weights::kAway;
  }

  // Before the backward of a block; autograd may come here more than once.
  void before_unit(size_t u) {
    UnitState& unit = *units_[u];
    acquire(u);
    if (unit.backward_begun) return;
    unit.backward_begun = true;
    if (options_.overlap && u > 1) start_gather(u - 1);
    give_gradients(u);
  }

  void give_gradients(size_t u) {
    for (size_t other = 1; other < units_.size(); ++other) {
      if (other != u && u != 0 && gradient_buffer(other).data_ptr() == gradient_buffer(u).data_ptr())
        retire(other);
    }
    UnitState& unit = *units_[u];
    const Tensor& buffer = gradient_buffer(u);
    buffer.zero_();
    for (size_t i = 0; i < unit.unit.leaves.size(); ++i) {
      const Tensor& leaf = unit.unit.leaves[i].tensor;
      const int64_t at = unit.layout.gradient_element[i];
      set_gradient(leaf, buffer.slice(0, at, at + leaf.numel()).view(leaf.sizes()));
    }
  }

  void arrived(size_t u, size_t leaf) {
    UnitState& unit = *units_[u];
    if (!unit.countdown.arrived(leaf) || u == 0) return;
    release(u);
    unit.scatter_due = true;
    if (options_.overlap) start_scatter(u);
  }

  void start_scatter(size_t u) {
    UnitState& unit = *units_[u];
    unit.scatter_due = false;
    std::vector<comm::Scatter> parts;
    for (size_t i = 0; i < unit.unit.leaves.size(); ++i) {
      const Cut& cut = unit.layout.cuts[i];
      const int64_t whole = unit.layout.gradient_element[i], part = unit.layout.shard_element[i];
      parts.push_back({scattered_buffer(u).slice(0, part, part + cut.chunk_elements()),
                       gradient_buffer(u).slice(0, whole, whole + cut.padded_elements())});
    }
    unit.scatter = inside_->reduce_scatter(std::move(parts), comm::Reduce::kSum, unit.unit.name);
  }

  // The unit's gradient is with its owners, and its buffers are free.
  void retire(size_t u) {
    UnitState& unit = *units_[u];
    if (unit.scatter_due) start_scatter(u);
    if (!unit.scatter) return;
    clock_.wait(*unit.scatter);
    unit.scatter.reset();
    for (const nn::NamedTensor& leaf : unit.unit.leaves) leaf.tensor.mutable_grad() = Tensor();
    unit.shard_gradient.add_(scattered_buffer(u).slice(0, 0, unit.layout.shard_elements));
    if (last_ && across_)
      across_pending_.push_back(
          across_->all_reduce(unit.shard_gradient, comm::Reduce::kSum, unit.unit.name));
  }

  Options options_;
  std::unique_ptr<comm::Communicator> owned_inside_, across_;
  comm::Communicator* inside_ = nullptr;
  at::TensorOptions float_, bytes_;
  std::vector<std::unique_ptr<UnitState>> units_;
  std::vector<Owned> owned_;
  Tensor root_weights_, root_gradient_, root_scattered_;
  std::vector<Tensor> block_weights_, block_gradients_, block_scattered_;
  std::vector<LeafHooks> hooks_;
  std::vector<comm::Work> across_pending_;
  int64_t peak_blocks_ = 0;
  bool last_ = true;
  WaitClock clock_;
};

}  // namespace

std::unique_ptr<Parallel> make_sharded(const std::vector<Unit>& units, comm::Communicator& world,
                                       const Options& options) {
  return std::make_unique<Sharded>(units, world, options);
}

}  // namespace varscale::parallel
