#include "data/png.hpp"

#include <ATen/ATen.h>

#include "base/error.hpp"
#include "data/image_file.hpp"

namespace varscale::data {

at::Tensor to_u8_BHWC(const at::Tensor& x_BCHW) {
  VARSCALE_CHECK(x_BCHW.dim() == 4 && x_BCHW.size(1) == 3, "images [B,3,H,W] expected");
  return x_BCHW.detach()
      .to(at::kCPU, at::kFloat)
      .mul(127.5)
      .add_(127.5)
      .round_()
      .clamp_(0, 255)
      .to(at::kByte)
      .permute({0, 2, 3, 1})
      .contiguous();
}

at::Tensor to_float_BCHW(const at::Tensor& images_u8_BHWC) {
  VARSCALE_CHECK(images_u8_BHWC.dim() == 4 && images_u8_BHWC.size(3) == 3 &&
                     images_u8_BHWC.scalar_type() == at::kByte,
                 "uint8 images [B,H,W,3] expected");
  const at::Tensor x = images_u8_BHWC.permute({0, 3, 1, 2}).to(at::kFloat).div_(255.f);
  return x.add(x).sub_(1.f).contiguous();
}

at::Tensor grid(const at::Tensor& images_u8_BHWC, int64_t columns, int64_t gap) {
  VARSCALE_CHECK(images_u8_BHWC.dim() == 4 && images_u8_BHWC.size(3) == 3,
                 "uint8 images [B,H,W,3] expected");
  VARSCALE_CHECK(columns >= 1 && gap >= 0, "{} columns, gap {}", columns, gap);
  const int64_t count = images_u8_BHWC.size(0), height = images_u8_BHWC.size(1),
                width = images_u8_BHWC.size(2);
  const int64_t rows = (count + columns - 1) / columns;
  at::Tensor sheet =
      at::full({rows * (height + gap) + gap, columns * (width + gap) + gap, 3}, 255, at::kByte);
  for (int64_t i = 0; i < count; ++i) {
    sheet.narrow(0, i / columns * (height + gap) + gap, height)
        .narrow(1, i % columns * (width + gap) + gap, width)
        .copy_(images_u8_BHWC[i]);
  }
  return sheet;
}

at::Tensor enlarge(const at::Tensor& image_u8_HWC, int64_t factor) {
  return image_u8_HWC.repeat_interleave(factor, 0).repeat_interleave(factor, 1);
}

void write_png(const std::filesystem::path& path, const at::Tensor& image_u8_HWC) {
  VARSCALE_CHECK(image_u8_HWC.dim() == 3 && image_u8_HWC.size(2) == 3 &&
                     image_u8_HWC.scalar_type() == at::kByte,
                 "a uint8 image [H,W,3] expected");
  const at::Tensor image = image_u8_HWC.to(at::kCPU).contiguous();
  write_png_file(path, image.const_data_ptr<uint8_t>(), image.size(1), image.size(0),
                 Durability::kAtomic);
}

}  // namespace varscale::data
