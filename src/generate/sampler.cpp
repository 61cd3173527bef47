#include "generate/sampler.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <map>

#include "base/error.hpp"

namespace varscale::generate {

using base::UserError;

namespace {

// For each group in order of its number: which of `images` each slot holds, or -1.
std::map<int64_t, std::vector<int64_t>> slots_of(const std::vector<int64_t>& images,
                                                 int64_t group) {
  std::map<int64_t, std::vector<int64_t>> groups;
  for (size_t i = 0; i < images.size(); ++i) {
    if (images[i] < 0) throw UserError("image index {} is negative", images[i]);
    auto& slots = groups.try_emplace(images[i] / group, group, -1).first->second;
    int64_t& slot = slots[images[i] % group];
    if (slot >= 0) throw UserError("image {} is asked for twice", images[i]);
    slot = static_cast<int64_t>(i);
  }
  return groups;
}

}  // namespace

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
    images.push_back(request.image);
  }
  const auto groups = slots_of(images, G);
  samples.tokens_BL =
      at::empty({B, shape.tokens.scales.tokens()}, at::device(device).dtype(at::kLong));
  samples.f_hat_BEHW = at::empty({B, shape.tokens.code_width, side, side}, at::device(device));

  models::KvCache cache = model_.make_cache(options_.cfg > 0 ? 2 * G : G, options_.compute);
  for (const auto& [number, slots] : groups) {
    std::vector<int64_t> images_G(G), labels_G(G, shape.classes);
    for (int64_t slot = 0; slot < G; ++slot) {
      images_G[slot] = number * G + slot;
      if (slots[slot] >= 0) labels_G[slot] = requests[slots[slot]].label;
    }
    const Group done =
        run_group(images_G, at::tensor(labels_G, at::kLong).to(device), cache, observe);
    int64_t filled = 0;
    for (int64_t slot = 0; slot < G; ++slot) {
      if (slots[slot] < 0) continue;
      samples.tokens_BL[slots[slot]].copy_(done.tokens_GL[slot]);
      samples.f_hat_BEHW[slots[slot]].copy_(done.f_hat_GEHW[slot]);
      ++filled;
    }
    if (after_group) after_group(filled);
  }
  return samples;
}

Sampler::Group Sampler::run_group(const std::vector<int64_t>& images_G, const Tensor& labels_G,
                                  models::KvCache& cache, const MapObserver& observe) const {
  const scaling::VarShape& shape = model_.shape();
  const scaling::ScaleList& scales = shape.tokens.scales;
  const int64_t G = options_.group, S = scales.count();
  const bool guided = options_.cfg > 0;

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
    const Tensor logits_GNV =
        options_.temperature == 1 ? view.logits_GNV : view.logits_GNV / options_.temperature;
    const Tensor tokens_GN = draw_tokens(filter_logits(logits_GNV, options_.top_k, options_.top_p),
                                         uniforms(options_.seed, images_G, k, scales.tokens_at(k)));
    group.tokens_GL.slice(1, scales.begin(k), scales.end(k)).copy_(tokens_GN);

    const Tensor added_GEHW = quantizer_.contribution(k, tokens_GN);
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
