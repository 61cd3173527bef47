// Without a device these tests fail: a machine that is asked for them must have one.
#include <gtest/gtest.h>

#include <cstdio>

#include "base/error.hpp"
#include "comm/communicator.hpp"
#include "nn/device.hpp"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  try {
    varscale::comm::cuda_device();
  } catch (const varscale::base::UserError&) {
    std::fprintf(stderr,
                 "gpu_test: no CUDA device is visible to this process, and nothing was tested\n");
    return 1;
  }
  varscale::nn::repeatable_cuda();
  return RUN_ALL_TESTS();
}
