// Starts the image library once for the whole test program.
#include <gtest/gtest.h>

#include <optional>

#include "data/vips_runtime.hpp"

namespace varscale::generate {
namespace {

class VipsEnvironment : public testing::Environment {
 public:
  void SetUp() override { vips_.emplace("generate_test"); }
  void TearDown() override { vips_.reset(); }

 private:
  std::optional<data::VipsRuntime> vips_;
};

[[maybe_unused]] const testing::Environment* const kVips =
    testing::AddGlobalTestEnvironment(new VipsEnvironment);  // owned by GoogleTest

}  // namespace
}  // namespace varscale::generate
