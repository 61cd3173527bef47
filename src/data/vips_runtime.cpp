#include "data/vips_runtime.hpp"

#include <vips/vips.h>

#include "base/error.hpp"

namespace varscale::data {

VipsRuntime::VipsRuntime(const char* program) {
  if (VIPS_INIT(program) != 0) {
    throw base::SystemError(std::string("starting libvips: ") + vips_error_buffer(), 0);
  }
  // What a reader warns of is in our errors, with the file's name.
  g_log_set_handler(
      "VIPS", G_LOG_LEVEL_WARNING, [](const char*, GLogLevelFlags, const char*, void*) {}, nullptr);
  vips_concurrency_set(1);
  vips_cache_set_max(0);  // every image is read once
}

VipsRuntime::~VipsRuntime() { vips_shutdown(); }

}  // namespace varscale::data
