#include "tokenizer/evaluate.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

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

TokenizerReport evaluate(const Vqvae& tokenizer, const ImageSource& images, int64_t limit,
                         int64_t batch) {
  at::NoGradGuard no_grad;
  TokenizerReport report;
  report.images = limit > 0 ? std::min(limit, images.count) : images.count;
  if (report.images < 1) throw base::UserError("there are no images to judge the tokenizer on");
  const int64_t codes = tokenizer.config().vocabulary;
  const int64_t scales = tokenizer.quantizer().config().scales.count();
  Tensor hits_SV = at::zeros({scales, codes}, at::kLong);
  for (int64_t begin = 0; begin < report.images; begin += batch) {
    std::vector<int64_t> numbers(std::min(batch, report.images - begin));
    std::iota(numbers.begin(), numbers.end(), begin);
    const Tensor image_B3XX = images.load({numbers, std::vector<int64_t>(numbers.size(), 0)});
    const Vqvae::Encoded encoded = tokenizer.encode(image_B3XX);
    for (int64_t k = 0; k < scales; ++k) {
      hits_SV[k].add_(encoded.tokens[k].reshape({-1}).bincount({}, codes));
    }
    const Tensor error =
        (tokenizer.decode_tokens(at::cat(encoded.tokens, 1)) - image_B3XX).to(at::kDouble);
    const Tensor mse_B = error.square().mean({1, 2, 3});
    report.mse += mse_B.sum().item<double>();
    report.l1 += error.abs().mean({1, 2, 3}).sum().item<double>();
    report.psnr_db += at::log10(4 / mse_B.clamp_min(1e-12)).sum().item<double>() * 10;
  }
  const auto count = static_cast<double>(report.images);
  report.mse /= count, report.l1 /= count, report.psnr_db /= count;
  for (int64_t k = 0; k < scales; ++k) report.scales.push_back(codebook_use(hits_SV[k]));
  report.all = codebook_use(hits_SV.sum(0));
  return report;
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
