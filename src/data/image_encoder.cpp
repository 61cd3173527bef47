#include "data/image_encoder.hpp"

#include <memory>

#include "tokenizer/vqvae.hpp"

namespace varscale::data {

ImageEncoder load_encoder(const std::filesystem::path& path, at::Device device) {
  const tokenizer::Vqvae loaded = tokenizer::Vqvae::load(path);
  auto vqvae = std::make_shared<tokenizer::Vqvae>(device.is_cpu() ? loaded : loaded.to(device));
  return {.image_side = loaded.config().image_side,
          .scales = loaded.config().scales,
          .fingerprint = loaded.fingerprint(),
          .path = path.string(),
          .quantizer = loaded.quantizer().weights(),
          .encode = [vqvae](const at::Tensor& x_BCHW) { return vqvae->tokens(x_BCHW); },
          .device = device};
}

}  // namespace varscale::data
