// The Mpi kind: blocking calls on the calling thread, CPU tensors.

// The C interface alone: the C++ one needs a further library.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1

#include <ATen/ATen.h>
#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include "comm/communicator.hpp"

namespace varscale::comm {

namespace {

void check(int code, std::string_view call, std::string_view tag) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw CommError(fmt::format("{} ({}): {}", call, tag, std::string_view(text.data(), length)));
}

// Of a type that check_all_reduce() lets pass.
MPI_Datatype datatype(at::ScalarType type) {
  return type == at::kFloat ? MPI_FLOAT : type == at::kDouble ? MPI_DOUBLE : MPI_INT64_T;
}

// MPI counts are ints: larger tensors go in slices of a fixed size.
constexpr int64_t kSlice = int64_t{1} << 28;

class MpiWorld final : public Communicator {
 public:
  MpiWorld() {
    int provided = 0;
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread",
          "start");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
  }
  ~MpiWorld() override { MPI_Finalize(); }
  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }

  Work all_reduce(Tensor inout_P, Reduce op, std::string_view tag) override {
    check_all_reduce(inout_P, tag);
    VARSCALE_CHECK(inout_P.is_cpu(), "{}: MPI reduces CPU tensors", tag);
    const MPI_Op mpi_op = op == Reduce::kSum ? MPI_SUM : op == Reduce::kMin ? MPI_MIN : MPI_MAX;
    auto* bytes = static_cast<std::byte*>(inout_P.data_ptr());
    for (int64_t begin = 0; begin < inout_P.numel(); begin += kSlice) {
      const auto count = static_cast<int>(std::min(kSlice, inout_P.numel() - begin));
      check(MPI_Allreduce(MPI_IN_PLACE, bytes + begin * inout_P.element_size(), count,
                          datatype(inout_P.scalar_type()), mpi_op, MPI_COMM_WORLD),
            "MPI_Allreduce", tag);
    }
    return Work(nullptr);
  }

  Work broadcast(Tensor inout_P, int root, std::string_view tag) override {
    check_broadcast(inout_P, root, tag);
    VARSCALE_CHECK(inout_P.is_cpu(), "{}: MPI broadcasts CPU tensors", tag);
    auto* bytes = static_cast<std::byte*>(inout_P.data_ptr());
    const auto total = static_cast<int64_t>(inout_P.nbytes());
    for (int64_t begin = 0; begin < total; begin += kSlice) {
      check(MPI_Bcast(bytes + begin, static_cast<int>(std::min(kSlice, total - begin)), MPI_BYTE,
                      root, MPI_COMM_WORLD),
            "MPI_Bcast", tag);
    }
    return Work(nullptr);
  }

  void barrier(std::string_view tag) override {
    check(MPI_Barrier(MPI_COMM_WORLD), "MPI_Barrier", tag);
  }

  void abort(std::string_view why, int exit_code) noexcept override {
    if (size_ == 1) return;
    std::fprintf(stderr, "rank %d: %.*s\n", rank_, static_cast<int>(why.size()), why.data());
    std::fflush(stderr);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
  }

 private:
  int rank_ = 0, size_ = 1;
};

// How many ranks the launcher says it started; 0: no launcher.
int announced_ranks() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS"}) {
    if (const char* value = std::getenv(name)) return std::atoi(value);
  }
  // Inside srun, but not in a batch script, which has a single task of its own.
  if (std::getenv("SLURM_STEP_ID") != nullptr && std::getenv("SLURM_STEP_NUM_TASKS") != nullptr) {
    return std::atoi(std::getenv("SLURM_STEP_NUM_TASKS"));
  }
  return 0;
}

}  // namespace

int local_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "MPI_LOCALRANKID"}) {
    if (const char* value = std::getenv(name)) return std::atoi(value);
  }
  return 0;
}

std::unique_ptr<Communicator> open_world() {
  const int announced = announced_ranks();
  if (announced == 0) return make_self();
  auto world = std::make_unique<MpiWorld>();
  if (announced > 1 && world->size() == 1) {
    throw base::UserError(
        "the launcher started {} ranks but MPI reports 1: the program was built with another MPI "
        "than the launcher's; "
        "use the mpirun of the MPI that CMake found",
        announced);
  }
  return world;
}

}  // namespace varscale::comm
