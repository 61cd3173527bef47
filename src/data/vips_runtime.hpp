// The image library, started once and shut down at the end.
//
//   int main(...) { VipsRuntime vips("var_data"); ... }
//
// Everything in this folder that reads or writes image files needs one alive. The library's own threads
// are limited to one an image: we decode many images side by side instead.
#pragma once

namespace varscale::data {

class VipsRuntime {
 public:
  explicit VipsRuntime(const char* program);  // SystemError if the library does not start
  ~VipsRuntime();
  VipsRuntime(const VipsRuntime&) = delete;
  VipsRuntime& operator=(const VipsRuntime&) = delete;
};

}  // namespace varscale::data
