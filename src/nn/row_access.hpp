// How the row kernels of this folder read and write: rows of float32 in place, rows of bf16 as they lie (with_elements) or
// through a float32 buffer; and sums over the rows of each sample whose order no number of threads changes.
//
//   at::parallel_for(0, N, row_grain(C), [&](int64_t begin, int64_t end) {
//     RowReader xs(x_NC, C);
//     RowWriter writer(y_NC, C);
//     for (int64_t n = begin; n < end; ++n) {
//       twice(xs.at(n * C, C), writer.at(n * C), C);
//       writer.done(n * C, C);
//     }
//   });
#pragma once

#include <ATen/core/Tensor.h>

#include <bit>
#include <cstdint>
#include <functional>
#include <vector>

namespace varscale::nn {

// Whether row kernels take this tensor's device and dtype.
bool has_row_kernels(const at::Tensor& x);

// Rows that a thread takes at least.
int64_t row_grain(int64_t row_elements);

void widen_row(const uint16_t* in, float* out, int64_t n);   // bf16 to float32
void narrow_row(const float* in, uint16_t* out, int64_t n);  // to the nearest, ties to even; NaN stays NaN

void scale_row(const float* x, float factor, float* out, int64_t n);  // out = factor x; both may be one
void scale_row(const uint16_t* x, float factor, uint16_t* out, int64_t n);

inline float widen(float x) { return x; }
inline float widen(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// Calls body(T{}) with the type of the elements of x, float32 or bf16 as its bits.
template <class Body>
void with_elements(const at::Tensor& x, const Body& body) {
  if (x.scalar_type() == at::kFloat) {
    body(float{});
  } else {
    body(uint16_t{});
  }
}
template <class T>
const T* elements(const at::Tensor& x) { return static_cast<const T*>(x.const_data_ptr()); }
template <class T>
T* mutable_elements(const at::Tensor& x) { return static_cast<T*>(x.data_ptr()); }

// `length`: of the longest row.
class RowReader {
 public:
  RowReader(const at::Tensor& tensor, int64_t length)
      : data_(tensor.const_data_ptr()), wide_(tensor.scalar_type() == at::kFloat) {
    if (!wide_) buffer_.resize(static_cast<size_t>(length));
  }
  const float* at(int64_t offset, int64_t length) {
    if (wide_) return static_cast<const float*>(data_) + offset;
    widen_row(static_cast<const uint16_t*>(data_) + offset, buffer_.data(), length);
    return buffer_.data();
  }

 private:
  const void* data_;
  bool wide_;
  std::vector<float> buffer_;
};

class RowWriter {
 public:
  RowWriter(const at::Tensor& tensor, int64_t length)
      : data_(tensor.data_ptr()), wide_(tensor.scalar_type() == at::kFloat) {
    if (!wide_) buffer_.resize(static_cast<size_t>(length));
  }
  float* at(int64_t offset) { return wide_ ? static_cast<float*>(data_) + offset : buffer_.data(); }
  void done(int64_t offset, int64_t length) {
    if (!wide_) narrow_row(buffer_.data(), static_cast<uint16_t*>(data_) + offset, length);
  }

 private:
  void* data_;
  bool wide_;
  std::vector<float> buffer_;
};

// Calls rows(begin, end, sums) in parallel for chunks of at most `chunk_rows` of the rows [0, B L), none of which crosses a
// sample; each adds to the `width` float32 numbers at `sums`, which are zero at first. Returns those of each sample added up in
// double, [B, width] float32.
at::Tensor sample_sums(int64_t B, int64_t L, int64_t width,
                       const std::function<void(int64_t begin, int64_t end, float* sums)>& rows, int64_t chunk_rows = 32);

// The first element of each sample's row of C in x_B1C (last stride 1), which may be one of several in a larger tensor.
class SampleRows {
 public:
  explicit SampleRows(const at::Tensor& x_B1C)
      : kept_(x_B1C.stride(2) == 1 ? x_B1C : x_B1C.contiguous()),
        data_(kept_.const_data_ptr<float>()),
        stride_(kept_.size(0) == 1 ? 0 : kept_.stride(0)) {}
  const float* of(int64_t b) const { return data_ + b * stride_; }

 private:
  at::Tensor kept_;
  const float* data_;
  int64_t stride_;
};

}  // namespace varscale::nn
