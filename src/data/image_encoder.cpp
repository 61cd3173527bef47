#include "data/image_encoder.hpp"

#include <memory>

#include "base/error.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::data {

ImageEncoder load_encoder(const std::filesystem::path& path, at::Device device, const std::string& precision) {
  if (precision != "fp32" && precision != "bf16")
    throw base::UserError("precision {}: expected fp32 or bf16", precision);
  const tokenizer::Vqvae loaded = tokenizer::Vqvae::load(path);
  const std::string fingerprint = loaded.fingerprint();
  auto vqvae = std::make_shared<tokenizer::Vqvae>(device.is_cpu() ? loaded : loaded.to(device));
  if (precision == "bf16") vqvae->encode_in(at::kBFloat16);
  return {.image_side = loaded.config().image_side,
          .scales = loaded.config().scales,
          .fingerprint = fingerprint,
          .path = path.string(),
          .quantizer = loaded.quantizer().weights(),
          .encode = [vqvae](const at::Tensor& x_BCHW) { return vqvae->tokens(x_BCHW); },
          .device = device,
          .precision = precision};
}

}  // namespace varscale::data
