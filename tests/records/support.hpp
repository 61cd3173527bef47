// What the tests of records share: a folder that goes away, small inputs, the project's Python.
#pragma once

#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>

#include "base/error.hpp"
#include "base/file.hpp"
#include "records/run_file.hpp"
#include "records/token_file.hpp"
#include "tests/support/python.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::records {

using base::TemporaryFolder;
using test::run_python;

// A way to spoil a good file, and what the reader must say of it.
struct Damage {
  const char* name;
  std::function<void(const std::filesystem::path&)> apply;
  const char* sentence;
};

// Lets `change` alter an HDF5 file behind the library's back.
inline void edit(const std::filesystem::path& path, const std::function<void(hid_t)>& change) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  change(file);
  ASSERT_GE(H5Fclose(file), 0);
}

inline StepRow step_row(int64_t step) {
  const auto x = static_cast<double>(step);
  return {step,           1,      16 * x,  480 * x, 1e9 * x, 1e-3 / x, 5 - 0.01 * x,
          5.5 - 0.01 * x, 0.9375, 0.96875, 1.25,    0,       0.1,      0.05,
          0.08,           1,      0.01,    0.03,    1 << 20, 4800,     0.01,
          0.5};
}
inline EvalRow eval_row(int64_t step) {
  const auto x = static_cast<double>(step);
  return {step, 1, 16 * x, 480 * x, 1e9 * x, 1e-3, 4.75, 5.25, 0.9, 0.95, 500, 1, 2.5};
}
inline std::vector<ScaleRow> scale_rows(int64_t step) {
  return {{step, 0, 4.0, 0.5}, {step, 1, 4.5, 0.75}, {step, 2, 5.1, 0.9}};
}
inline Facts facts() {
  return {{"depth", int64_t{4}},
          {"lr_peak", 6e-3 / 7},
          {"role", std::string("main")},
          {"note", std::string("Tiefe λ, ε = 0.1")},
          {"empty", std::string()}};
}

}  // namespace varscale::records
