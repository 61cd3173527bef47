#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <string_view>
#include <utility>

#include "base/random.hpp"
#include "evaluate/inception.hpp"
#include "evaluate/named_weights.hpp"

namespace varscale::evaluate {

namespace {

constexpr double kEps = 1e-3;
constexpr NetworkWords kWords{"the FID Inception v3", "the FID Inception v3 under pytorch-fid's names (566 tensors)"};

// Appends the tensors of one network in state-dict order.
class Lister {
 public:
  void unit(const std::string& name, int64_t in, int64_t out, int64_t height, int64_t width) {
    state_.push_back({name + ".conv.weight", at::empty({out, in, height, width})});
    for (const char* part : {"weight", "bias", "running_mean", "running_var"})
      state_.push_back({name + ".bn." + part, at::empty({out})});
    state_.push_back({name + ".bn.num_batches_tracked", at::empty({}, at::kLong)});
  }
  void mixed_a(const std::string& name, int64_t in, int64_t pool) {
    unit(name + ".branch1x1", in, 64, 1, 1);
    unit(name + ".branch5x5_1", in, 48, 1, 1);
    unit(name + ".branch5x5_2", 48, 64, 5, 5);
    unit(name + ".branch3x3dbl_1", in, 64, 1, 1);
    unit(name + ".branch3x3dbl_2", 64, 96, 3, 3);
    unit(name + ".branch3x3dbl_3", 96, 96, 3, 3);
    unit(name + ".branch_pool", in, pool, 1, 1);
  }
  void mixed_b(const std::string& name, int64_t in) {
    unit(name + ".branch3x3", in, 384, 3, 3);
    unit(name + ".branch3x3dbl_1", in, 64, 1, 1);
    unit(name + ".branch3x3dbl_2", 64, 96, 3, 3);
    unit(name + ".branch3x3dbl_3", 96, 96, 3, 3);
  }
  void mixed_c(const std::string& name, int64_t mid) {
    unit(name + ".branch1x1", 768, 192, 1, 1);
    unit(name + ".branch7x7_1", 768, mid, 1, 1);
    unit(name + ".branch7x7_2", mid, mid, 1, 7);
    unit(name + ".branch7x7_3", mid, 192, 7, 1);
    unit(name + ".branch7x7dbl_1", 768, mid, 1, 1);
    unit(name + ".branch7x7dbl_2", mid, mid, 7, 1);
    unit(name + ".branch7x7dbl_3", mid, mid, 1, 7);
    unit(name + ".branch7x7dbl_4", mid, mid, 7, 1);
    unit(name + ".branch7x7dbl_5", mid, 192, 1, 7);
    unit(name + ".branch_pool", 768, 192, 1, 1);
  }
  void mixed_d(const std::string& name) {
    unit(name + ".branch3x3_1", 768, 192, 1, 1);
    unit(name + ".branch3x3_2", 192, 320, 3, 3);
    unit(name + ".branch7x7x3_1", 768, 192, 1, 1);
    unit(name + ".branch7x7x3_2", 192, 192, 1, 7);
    unit(name + ".branch7x7x3_3", 192, 192, 7, 1);
    unit(name + ".branch7x7x3_4", 192, 192, 3, 3);
  }
  void mixed_e(const std::string& name, int64_t in) {
    unit(name + ".branch1x1", in, 320, 1, 1);
    unit(name + ".branch3x3_1", in, 384, 1, 1);
    unit(name + ".branch3x3_2a", 384, 384, 1, 3);
    unit(name + ".branch3x3_2b", 384, 384, 3, 1);
    unit(name + ".branch3x3dbl_1", in, 448, 1, 1);
    unit(name + ".branch3x3dbl_2", 448, 384, 3, 3);
    unit(name + ".branch3x3dbl_3a", 384, 384, 1, 3);
    unit(name + ".branch3x3dbl_3b", 384, 384, 3, 1);
    unit(name + ".branch_pool", in, 192, 1, 1);
  }
  nn::NamedTensors finish() {
    state_.push_back({"fc.weight", at::empty({1008, 2048})});
    state_.push_back({"fc.bias", at::empty({1008})});
    return std::move(state_);
  }

 private:
  nn::NamedTensors state_;
};

}  // namespace

nn::NamedTensors Inception::state() {
  Lister list;
  list.unit("Conv2d_1a_3x3", 3, 32, 3, 3);
  list.unit("Conv2d_2a_3x3", 32, 32, 3, 3);
  list.unit("Conv2d_2b_3x3", 32, 64, 3, 3);
  list.unit("Conv2d_3b_1x1", 64, 80, 1, 1);
  list.unit("Conv2d_4a_3x3", 80, 192, 3, 3);
  list.mixed_a("Mixed_5b", 192, 32);
  list.mixed_a("Mixed_5c", 256, 64);
  list.mixed_a("Mixed_5d", 288, 64);
  list.mixed_b("Mixed_6a", 288);
  list.mixed_c("Mixed_6b", 128);
  list.mixed_c("Mixed_6c", 160);
  list.mixed_c("Mixed_6d", 160);
  list.mixed_c("Mixed_6e", 192);
  list.mixed_d("Mixed_7a");
  list.mixed_e("Mixed_7b", 1280);
  list.mixed_e("Mixed_7c", 2048);
  return list.finish();
}

Inception::Inception(const Weights& weights, const std::string& where, std::string name) {
  at::NoGradGuard no_grad;
  const nn::NamedTensors state = Inception::state();
  check_state(weights, state, where, kWords);
  nn::NamedTensors hashed;  // what has an effect, in state-dict order
  for (const auto& [key, empty] : state) {
    if (is_counter(key) || key == "fc.bias") continue;
    hashed.push_back({key, finite_weight(weights, key, where)});
  }
  identity_ = nn::fingerprint(hashed);
  name_ = name.empty() ? "inception-" + identity_.substr(0, 8) : std::move(name);
  // Convolutions come with the four parts of their norm behind them; fc.weight is the last.
  constexpr size_t kPerUnit = 5;
  for (size_t i = 0; i + kPerUnit <= hashed.size(); i += kPerUnit) {
    const auto part = [&](size_t j) { return hashed[i + j].tensor; };
    std::string unit = hashed[i].name;
    unit.resize(unit.size() - std::string_view(".conv.weight").size());
    FoldedConvolution& folded = units_[unit] = fold_norm(part(0), part(1), part(2), part(3), part(4), kEps);
    folded.weight_OIkk = folded.weight_OIkk.contiguous(at::MemoryFormat::ChannelsLast);
  }
  fc_weight_CD_ = hashed.back().tensor;
}

Inception Inception::load(const std::filesystem::path& path, std::string name) {
  const StateOnDisk file = read_state(path, state());
  return Inception(file.weights, file.where, std::move(name));
}

Inception Inception::random(uint64_t seed) {
  Weights weights;
  for (const auto& [name, tensor] : state()) {
    if (tensor.dim() >= 2) {
      const double fan_in = static_cast<double>(tensor[0].numel()), gain = tensor.dim() == 4 ? 2 : 1;
      base::RandomStream(seed, "feature_network", name)
          .fill_normal(tensor.mutable_data_ptr<float>(), 0, tensor.numel(),
                       static_cast<float>(std::sqrt(gain / fan_in)));
    } else {
      tensor.fill_(name.ends_with("bn.weight") || name.ends_with("running_var") ? 1 : 0);
    }
    weights[name] = tensor;
  }
  Inception network(weights, "random weights", fmt::format("random inception, seed {}", seed));
  network.is_random_ = true;
  return network;
}

}  // namespace varscale::evaluate
