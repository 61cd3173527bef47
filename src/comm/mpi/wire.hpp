// How the engine's parts speak MPI.
#pragma once

// The C interface alone: the C++ one needs a further library.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1

#include <fmt/format.h>
#include <mpi.h>

#include <array>
#include <chrono>
#include <string>
#include <string_view>

#include "comm/communicator.hpp"

namespace varscale::comm::mpi {

using Clock = std::chrono::steady_clock;

enum Tag { kQuestion = 1, kAnswer, kAskTurn, kGiveTurn, kLetter, kEnding, kFirstOfGroups };
enum class Part { kMeet, kData };  // of a collective

// A group of its own has two tags that no other has.
inline int tag_of(int64_t own, Part part) {
  return static_cast<int>(kFirstOfGroups + 2 * own + static_cast<int>(part));
}
inline constexpr int64_t kMostGroups = int64_t{1} << 29;  // of MPI's tags, Open MPI's are 31 bits

constexpr size_t kWords = 1024;  // of a description, in messages about faults

inline void check(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw CommError(fmt::format("{}: {}", call, text.data()));
}

inline std::string padded(std::string_view text, size_t length) {
  std::string record(text.substr(0, length));
  record.resize(length, '\0');
  return record;
}

inline std::string unpadded(const std::string& record) { return record.c_str(); }

}  // namespace varscale::comm::mpi
