#include "generate/sampler.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.hpp"

namespace varscale::generate {

using base::UserError;

namespace {

void check_given(const Given& given, const scaling::TokenSpace& space) {
  if (!given.tokens_L.defined() && !given.keep_L.defined()) return;
  const int64_t L = space.scales.tokens();
  const auto is = [&](const Tensor& x, at::ScalarType type) {
    return x.defined() && x.dim() == 1 && x.size(0) == L && x.scalar_type() == type && x.is_cpu();
  };
  VARSCALE_CHECK(is(given.tokens_L, at::kLong) && is(given.keep_L, at::kBool),
                 "given tokens: expected {} int64 tokens and as many truth values", L);
  VARSCALE_CHECK(given.tokens_L.min().item<int64_t>() >= 0 && given.tokens_L.max().item<int64_t>() < space.vocabulary,
                 "given tokens: beyond the {} codes", space.vocabulary);
}

}  // namespace

std::vector<std::vector<int64_t>> packed(const std::vector<int64_t>& images, int64_t group) {
  std::vector<int64_t> order(images.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::ranges::sort(order, {}, [&](int64_t i) { return images[i]; });
  std::vector<std::vector<int64_t>> groups;
  std::vector<size_t> taken(group);  // groups that have an image in this slot: the first ones
  for (size_t n = 0; n < order.size(); ++n) {
    const int64_t image = images[order[n]];
    if (image < 0) throw UserError("image index {} is negative", image);
    if (n > 0 && image == images[order[n - 1]]) throw UserError("image {} is asked for twice", image);
    const size_t g = taken[image % group]++;
    if (g == groups.size()) groups.emplace_back();
    groups[g].push_back(order[n]);
  }
  for (std::vector<int64_t>& members : groups)
    std::ranges::sort(members, {}, [&](int64_t i) { return images[i] % group; });
  return groups;
}

void SamplingOptions::check(int64_t vocabulary) const {
  if (!std::isfinite(cfg) || cfg < 0) throw UserError("cfg is {}, expected at least 0", cfg);
  if (top_k < 0 || top_k > vocabulary)
    throw UserError("top-k is {}, expected 0 (off) to {}, the size of the vocabulary", top_k,
                    vocabulary);
  if (!(top_p >= 0 && top_p <= 1)) throw UserError("top-p is {}, expected 0 (off) to 1", top_p);
  if (!std::isfinite(temperature) || temperature <= 0)
    throw UserError("temperature is {}, expected more than 0", temperature);
  if (group < 1) throw UserError("group is {}, expected at least 1 slot", group);
  if (compute != at::kFloat && compute != at::kBFloat16)
    throw UserError("sampling computes in float32 or bfloat16, not in {}", c10::toString(compute));
}

Sampler::Sampler(const models::Var& model, const tokenizer::Quantizer& quantizer,
                 SamplingOptions options)
    : model_(model), quantizer_(quantizer), options_(options) {
  const scaling::TokenSpace& space = model.shape().tokens;
  const tokenizer::QuantizerConfig& config = quantizer.config();
  if (config.vocabulary != space.vocabulary || config.code_width != space.code_width ||
      !(config.scales == space.scales)) {
    throw UserError(
        "the model has {} codes of width {} at scales {}, the quantiser {} of width {} at scales "
        "{}",
        space.vocabulary, space.code_width, space.scales.words(), config.vocabulary,
        config.code_width, config.scales.words());
  }
  options_.check(space.vocabulary);
}

Samples Sampler::sample(const std::vector<Request>& requests, const MapObserver& observe,
                        const std::function<void(int64_t)>& after_group) const {
  at::NoGradGuard no_grad;
  const scaling::VarShape& shape = model_.shape();
  const int64_t B = static_cast<int64_t>(requests.size()), G = options_.group;
  const int64_t side = shape.tokens.scales.last_side();
  const at::Device device = model_.parameters().front().tensor.device();

  Samples samples;
  std::vector<int64_t> images;
  for (const Request& request : requests) {
    if (request.label < 0 || request.label > shape.classes)
      throw UserError("label {} is not a class: expected 0 to {} ({} is the null class)",
                      request.label, shape.classes, shape.classes);
    check_given(request.given, shape.tokens);
    images.push_back(request.image);
  }
  const auto groups = packed(images, G);
  samples.tokens_BL =
      at::empty({B, shape.tokens.scales.tokens()}, at::device(device).dtype(at::kLong));
  samples.f_hat_BEHW = at::empty({B, shape.tokens.code_width, side, side}, at::device(device));

  models::KvCache cache = model_.make_cache(options_.cfg > 0 ? 2 * G : G, options_.compute);
  for (const std::vector<int64_t>& members : groups) {
    std::vector<Request> requests_G(G, {.label = shape.classes});
    for (const int64_t i : members) requests_G[images[i] % G] = requests[i];
    const Group done = run_group(requests_G, cache, observe);
    for (const int64_t i : members) {
      samples.tokens_BL[i].copy_(done.tokens_GL[images[i] % G]);
      samples.f_hat_BEHW[i].copy_(done.f_hat_GEHW[images[i] % G]);
    }
    if (after_group) after_group(static_cast<int64_t>(members.size()));
  }
  return samples;
}

Tensor Sampler::contribution(int64_t k, const Given& given, const Tensor& weights_NV, const Tensor& tokens_N) const {
  const scaling::ScaleList& scales = quantizer_.config().scales;
  Tensor keep_N;
  if (given.keep_L.defined()) {
    const auto map_of = [&](const Tensor& all_L) {
      return all_L.slice(0, scales.begin(k), scales.end(k)).to(tokens_N.device());
    };
    keep_N = map_of(given.keep_L);
    tokens_N.copy_(at::where(keep_N, map_of(given.tokens_L), tokens_N));
  }
  if (!weights_NV.defined()) return quantizer_.contribution(k, tokens_N.unsqueeze(0));
  const Tensor embedding_VE = quantizer_.embedding_VC();
  Tensor codes_NE = at::mm(weights_NV, embedding_VE);
  if (keep_N.defined()) codes_NE = at::where(keep_N.unsqueeze(1), at::embedding(embedding_VE, tokens_N), codes_NE);
  return quantizer_.contribution(k, codes_NE.unsqueeze(0));
}

Sampler::Group Sampler::run_group(const std::vector<Request>& requests_G, models::KvCache& cache,
                                  const MapObserver& observe) const {
  const scaling::VarShape& shape = model_.shape();
  const scaling::ScaleList& scales = shape.tokens.scales;
  const int64_t G = options_.group, S = scales.count();
  const bool guided = options_.cfg > 0;
  std::vector<int64_t> images_G, list_G;
  for (const Request& request : requests_G) {
    images_G.push_back(request.image);
    list_G.push_back(request.label);
  }
  const Tensor labels_G = at::tensor(list_G, at::kLong).to(model_.parameters().front().tensor.device());

  // The second half of the batch is the same images under the null class.
  const models::Var::Condition condition = model_.condition(
      guided ? at::cat({labels_G, at::full_like(labels_G, shape.classes)}) : labels_G);
  Group group;
  group.tokens_GL = at::empty({G, scales.tokens()}, labels_G.options());
  cache.tokens = 0;
  Tensor x_BNC = model_.embed(condition, {});
  for (int64_t k = 0; k < S; ++k) {
    for (int64_t i = 0; i < shape.depth; ++i) {
      x_BNC = model_.block_cached(i, x_BNC, condition, cache, options_.compute);
    }
    const Tensor all_BNV = model_.head(x_BNC, condition, options_.compute);
    MapView view{.k = k, .logits_GNV = all_BNV.slice(0, 0, G).to(at::kFloat), .next_GNE = {}};
    if (guided)
      view.logits_GNV =
          guide(view.logits_GNV, all_BNV.slice(0, G), guidance_at(options_.cfg, k, S));
    const Tensor logits_GNV = filter_logits(
        options_.temperature == 1 ? view.logits_GNV : view.logits_GNV / options_.temperature, options_.top_k,
        options_.top_p);
    const Tensor tokens_GN = group.tokens_GL.slice(1, scales.begin(k), scales.end(k));
    if (!options_.smooth)
      tokens_GN.copy_(draw_tokens(logits_GNV, uniforms(options_.seed, images_G, k, scales.tokens_at(k))));
    // Slot by slot: with the bits of an image alone.
    std::vector<Tensor> added_G1EHW;
    for (int64_t slot = 0; slot < G; ++slot) {
      Tensor weights_NV;
      if (options_.smooth) {
        weights_NV = smooth_weights(logits_GNV[slot], options_.seed, images_G[slot], k, S);
        tokens_GN[slot].copy_(weights_NV.argmax(-1));
      }
      added_G1EHW.push_back(contribution(k, requests_G[slot].given, weights_NV, tokens_GN[slot]));
    }
    const Tensor added_GEHW = at::cat(added_G1EHW);
    group.f_hat_GEHW = k == 0 ? added_GEHW : group.f_hat_GEHW.add_(added_GEHW);
    if (k + 1 < S) {
      view.next_GNE = quantizer_.next_input(k + 1, group.f_hat_GEHW);
      x_BNC = model_.embed_map(k + 1, guided ? view.next_GNE.repeat({2, 1, 1}) : view.next_GNE);
    }
    if (observe) observe(view);
  }
  return group;
}

Tensor decode_each(const tokenizer::Vqvae& tokenizer, const Tensor& f_hat_BEHW) {
  at::NoGradGuard no_grad;
  std::vector<Tensor> images_13XX;
  for (const Tensor& f_hat_1EHW : f_hat_BEHW.split(1))
    images_13XX.push_back(tokenizer.decode(f_hat_1EHW));
  return at::cat(images_13XX);
}

}  // namespace varscale::generate
