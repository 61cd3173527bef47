#include "tokenizer/evaluate.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.hpp"

namespace varscale::tokenizer {

nlohmann::ordered_json TokenizerReport::json() const {
  auto use_json = [](const CodebookUse& use) {
    return nlohmann::ordered_json{
        {"used", use.used}, {"used_share", use.used_share()}, {"perplexity", use.perplexity}};
  };
  nlohmann::ordered_json json{
      {"images", images},   {"psnr_db", psnr_db},         {"mse", mse},          {"l1", l1},
      {"codes", all.codes}, {"dead_codes", dead_codes()}, {"all", use_json(all)}};
  json["scales"] = nlohmann::ordered_json::array();
  for (const CodebookUse& use : scales) json["scales"].push_back(use_json(use));
  return json;
}

Measured measure(const Vqvae& tokenizer, const Tensor& image_B3XX) {
  at::NoGradGuard no_grad;
  const int64_t codes = tokenizer.config().vocabulary;
  const Vqvae::Encoded encoded = tokenizer.encode(image_B3XX);
  std::vector<Tensor> hits;
  for (const Tensor& tokens : encoded.tokens) hits.push_back(tokens.reshape({-1}).bincount({}, codes));
  const Tensor reconstruction_B3XX = tokenizer.decode_tokens(at::cat(encoded.tokens, 1));
  const Tensor error = (reconstruction_B3XX - image_B3XX).to(at::kDouble);
  const Tensor mse_B = error.square().mean({1, 2, 3});
  return {reconstruction_B3XX,
          at::stack({mse_B, error.abs().mean({1, 2, 3}), at::log10(4 / mse_B.clamp_min(1e-12)) * 10}, 1),
          at::stack(hits)};
}

TokenizerReport summarise(const Tensor& errors_N3, const Tensor& hits_SV) {
  TokenizerReport report;
  report.images = errors_N3.size(0);
  const Tensor means_3 = errors_N3.mean(0);
  report.mse = means_3[0].item<double>(), report.l1 = means_3[1].item<double>();
  report.psnr_db = means_3[2].item<double>();
  for (int64_t k = 0; k < hits_SV.size(0); ++k) report.scales.push_back(codebook_use(hits_SV[k]));
  report.all = codebook_use(hits_SV.sum(0));
  return report;
}

int64_t images_judged(const ImageSource& images, int64_t limit) {
  const int64_t count = limit > 0 ? std::min(limit, images.count) : images.count;
  if (count < 1) throw base::UserError("there are no images to judge the tokenizer on");
  return count;
}

std::vector<Tensor> reconstructions_by_scale(const Vqvae& tokenizer, const Tensor& image_B3XX) {
  at::NoGradGuard no_grad;
  std::vector<Tensor> rows{image_B3XX};
  for (const Tensor& f_hat_BCHW : tokenizer.quantizer().cumulative(tokenizer.tokens(image_B3XX))) {
    rows.push_back(tokenizer.decode(f_hat_BCHW));
  }
  return rows;
}

}  // namespace varscale::tokenizer
