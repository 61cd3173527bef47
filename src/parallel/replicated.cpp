// Every rank owns the whole model. Gradients lie in buckets, which are summed over the ranks while
// backward still runs on the units before.
#include <ATen/ATen.h>

#include <optional>

#include "nn/storage.hpp"
#include "parallel/autograd.hpp"
#include "parallel/ledger.hpp"

namespace varscale::parallel {

namespace {

// The first bucket is small, so that the first reduction starts early.
constexpr int64_t kFirstBucketElements = (int64_t{1} << 20) / 4;
constexpr int64_t kBucketElements = (int64_t{25} << 20) / 4;

struct Bucket {
  int64_t begin = 0, end = 0;  // in the flat gradient
  size_t leaves = 0, left = 0;
};

class Replicated final : public Parallel {
 public:
  Replicated(const std::vector<Unit>& units, comm::Communicator& world, const Options& options)
      : world_(world), options_(options), clock_(units.at(0).leaves.at(0).tensor.device()) {
    for (const Unit& unit : units)
      for (const nn::NamedTensor& leaf : unit.leaves) leaves_.push_back(leaf);
    const at::TensorOptions flat =
        leaves_.at(0).tensor.options().dtype(at::kFloat).requires_grad(false);
    flat_gradient_P_ = at::zeros({nn::count_elements(leaves_)}, flat);
    owned_.resize(leaves_.size());
    bucket_of_.resize(leaves_.size());
    int64_t end = 0;
    // Last leaves first: backward reaches them first.
    for (size_t i = leaves_.size(); i-- > 0;) {
      const Tensor& leaf = leaves_[i].tensor;
      const int64_t begin = end;
      end += leaf.numel();
      const int64_t bound = buckets_.size() <= 1 ? kFirstBucketElements : kBucketElements;
      if (buckets_.empty() || end - buckets_.back().begin > bound) buckets_.push_back({begin, end});
      buckets_.back().end = end;
      ++buckets_.back().leaves;
      bucket_of_[i] = buckets_.size() - 1;
      own(i, flat_gradient_P_.slice(0, begin, end).view(leaf.sizes()));
    }
    std::vector<Tensor> tensors;
    for (const nn::NamedTensor& leaf : leaves_) tensors.push_back(leaf.tensor);
    countdown_.emplace(leaves_.size());
    hooks_.emplace(tensors, [this](size_t leaf) { arrived(leaf); });
  }

  void begin_step() override {
    flat_gradient_P_.zero_();
    pending_.clear();
    next_bucket_ = 0;
  }

  void begin_micro(bool last) override {
    last_ = last;
    countdown_->reset();
    for (Bucket& bucket : buckets_) bucket.left = bucket.leaves;
  }

  Tensor run(size_t, const std::vector<Tensor>& inputs, const Body& body) override {
    if (options_.recompute && at::GradMode::is_enabled()) return recomputed(inputs, body);
    return body(inputs);
  }

  void finish_backward() override {
    for (size_t i = 0; i < leaves_.size(); ++i) {
      VARSCALE_CHECK(leaves_[i].tensor.grad().data_ptr() == owned_[i].gradient.data_ptr(),
                     "the gradient of {} left its bucket", leaves_[i].name);
    }
    check_complete({"all", leaves_}, *countdown_);
    if (!last_) return;
    if (!options_.overlap) reduce_ready_buckets();
    VARSCALE_CHECK(next_bucket_ == buckets_.size(), "{} of {} buckets were reduced", next_bucket_,
                   buckets_.size());
    for (comm::Work& work : pending_) clock_.wait(work);
    pending_.clear();
  }

  void begin_forward() override {}
  void end_forward() override {}

  void weights_changed() override {
    at::NoGradGuard no_grad;
    for (size_t i = 0; i < leaves_.size(); ++i) {
      if (leaves_[i].tensor.scalar_type() != at::kFloat)
        leaves_[i].tensor.detach().copy_(owned_[i].weight);
    }
  }

  const std::vector<Owned>& owned() const noexcept override { return owned_; }

  bool saves(size_t i) const noexcept override {
    return static_cast<int>(i % static_cast<size_t>(world_.size())) == world_.rank();
  }

  Held held() const override {
    Held held;
    held.gradients = static_cast<int64_t>(flat_gradient_P_.nbytes());
    for (size_t i = 0; i < leaves_.size(); ++i) {
      held.weights += static_cast<int64_t>(owned_[i].weight.nbytes());
      if (leaves_[i].tensor.scalar_type() != at::kFloat)
        held.gathered += static_cast<int64_t>(leaves_[i].tensor.nbytes());
    }
    return held;
  }

  Tensor gradient_norm_squared() override { return sum_of_squares(owned_); }
  std::vector<nn::Interval> take_waits() override { return clock_.take(); }

 private:
  // float32 leaves are the master weights themselves.
  void own(size_t i, Tensor gradient) {
    const Tensor& leaf = leaves_[i].tensor;
    nn::allocate_storage(leaf);
    const Cut cut(leaf.sizes().vec(), 1);
    const Tensor weight = leaf.scalar_type() == at::kFloat
                              ? leaf.detach()
                              : at::empty(leaf.sizes(), gradient.options());
    set_gradient(leaf, gradient);
    owned_[i] = {leaves_[i].name, leaf.sizes().vec(), cut.axis, 0, cut.rows, weight,
                 std::move(gradient)};
  }

  void arrived(size_t leaf) {
    if (countdown_->has(leaf)) return;
    countdown_->arrived(leaf);
    --buckets_[bucket_of_[leaf]].left;
    if (last_ && options_.overlap) reduce_ready_buckets();
  }

  // In their order, whatever the order of arrival.
  void reduce_ready_buckets() {
    for (; next_bucket_ < buckets_.size() && buckets_[next_bucket_].left == 0; ++next_bucket_) {
      const Bucket& bucket = buckets_[next_bucket_];
      pending_.push_back(world_.all_reduce(flat_gradient_P_.slice(0, bucket.begin, bucket.end),
                                           comm::Reduce::kSum, "gradients"));
    }
  }

  comm::Communicator& world_;
  Options options_;
  nn::NamedTensors leaves_;
  std::vector<Owned> owned_;
  Tensor flat_gradient_P_;
  std::vector<Bucket> buckets_;
  std::vector<size_t> bucket_of_;  // by leaf
  std::optional<Countdown> countdown_;
  std::optional<LeafHooks> hooks_;
  std::vector<comm::Work> pending_;
  size_t next_bucket_ = 0;
  bool last_ = true;
  WaitClock clock_;
};

}  // namespace

std::unique_ptr<Parallel> make_replicated(const std::vector<Unit>& units, comm::Communicator& world,
                                          const Options& options) {
  return std::make_unique<Replicated>(units, world, options);
}

}  // namespace varscale::parallel
