#include "evaluate/image_quality.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <string>

#include "base/error.hpp"
#include "nn/tensor.hpp"

namespace varscale::evaluate {
namespace {

class ImageQuality : public testing::Test {
 protected:
  Tensor stored(const char* name) const { return nn::load_tensor(file_, name); }
  const base::SafetensorsFile file_{std::string(std::getenv("VARSCALE_FIXTURES")) + "/image_quality.safetensors"};
};

TEST_F(ImageQuality, EqualsThePlainFormulas) {
  const Tensor a = stored("a_u8"), b = stored("b_u8");
  EXPECT_TRUE(at::allclose(psnr(a, b, kBytes), stored("psnr"), 1e-12, 0));
  EXPECT_TRUE(at::allclose(ssim(a, b, kBytes), stored("ssim"), 1e-11, 0)) << ssim(a, b, kBytes);
}

TEST_F(ImageQuality, OfSignedImagesIsThatOfTheBytes) {
  const Tensor a = stored("a_u8").to(at::kDouble) / 127.5 - 1, b = stored("b_u8").to(at::kDouble) / 127.5 - 1;
  EXPECT_TRUE(at::allclose(psnr(a, b, kSigned), stored("psnr"), 1e-12, 0));
  EXPECT_TRUE(at::allclose(ssim(a, b, kSigned), stored("ssim"), 1e-10, 0)) << ssim(a, b, kSigned);
}

TEST_F(ImageQuality, OfEqualImagesIsInfiniteAndOne) {
  const Tensor a = stored("a_u8");
  EXPECT_TRUE(psnr(a, a, kBytes).isinf().all().item<bool>());
  EXPECT_TRUE(at::allclose(ssim(a, a, kBytes), at::ones({4}, at::kDouble), 0, 1e-14));
}

TEST_F(ImageQuality, RefusesOtherShapesAndSmallImages) {
  const Tensor a = stored("a_u8");
  EXPECT_THROW(psnr(a, a.slice(0, 1), kBytes), base::UserError);
  EXPECT_THROW(ssim(a.slice(3, 0, 10), a.slice(3, 0, 10), kBytes), base::UserError);
}

}  // namespace
}  // namespace varscale::evaluate
