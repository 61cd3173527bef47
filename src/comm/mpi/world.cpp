// The Mpi kind: CPU tensors; the engine's thread does the communication.
#include <algorithm>
#include <cstdlib>

#include "comm/mpi/engine.hpp"
#include "comm/mpi/wire.hpp"

namespace varscale::comm {

namespace {

struct TicketState final : Work::State {
  std::shared_ptr<mpi::Ticket> ticket;
  void wait() override { ticket->wait(); }
};

class MpiPost final : public Post {
 public:
  explicit MpiPost(std::shared_ptr<mpi::Engine> engine) : engine_(std::move(engine)) {}
  void send(int to, int box, std::string text) override { engine_->send_letter(to, box, std::move(text)); }
  std::optional<Letter> take(int box, double timeout_s) override { return engine_->take_letter(box, timeout_s); }

 private:
  std::shared_ptr<mpi::Engine> engine_;
};

class MpiGroup final : public Communicator {
 public:
  MpiGroup(std::shared_ptr<mpi::Engine> engine, std::shared_ptr<mpi::Group> group)
      : engine_(std::move(engine)), group_(std::move(group)) {}
  int rank() const noexcept override { return group_->rank; }
  int size() const noexcept override { return group_->size(); }

  std::unique_ptr<Communicator> create_group(const std::vector<int>& ranks, std::string_view tag,
                                             int64_t own) override {
    VARSCALE_CHECK(own >= 0 && own < mpi::kMostGroups, "{}: a group of its own numbered {}", tag, own);
    auto group = std::make_shared<mpi::Group>();
    group->own = own > 0 ? own : group_->own;
    for (const int r : ranks) {
      VARSCALE_CHECK(r >= 0 && r < size(), "{}: a group with rank {} of {}", tag, r, size());
      group->world_ranks.push_back(group_->world_ranks[r]);
    }
    const auto place = std::find(ranks.begin(), ranks.end(), rank());
    VARSCALE_CHECK(place != ranks.end(), "{}: rank {} is no member of the group", tag, rank());
    group->rank = static_cast<int>(place - ranks.begin());
    return std::make_unique<MpiGroup>(engine_, std::move(group));
  }

  void set_deadline(double seconds) override { engine_->set_deadline(seconds); }

  void end_group(std::string_view why) noexcept override { engine_->end_group(*group_, why); }
  std::optional<std::string> ended() override { return engine_->ended(*group_); }
  std::shared_ptr<Post> post() override { return std::make_shared<MpiPost>(engine_); }

  void abort(std::string_view why, int exit_code) noexcept override {
    if (engine_->size() == 1) return;
    engine_->abort(why, exit_code);
  }

 protected:
  Work start(Call call) override {
    for (const auto* tensors : {&call.out, &call.in}) {
      for (const Tensor& tensor : *tensors)
        VARSCALE_CHECK(tensor.is_cpu(), "{}: MPI carries CPU tensors", call.tag);
    }
    auto state = std::make_unique<TicketState>();
    state->ticket = engine_->submit(group_, std::move(call));
    return Work(std::move(state));
  }

 private:
  std::shared_ptr<mpi::Engine> engine_;
  std::shared_ptr<mpi::Group> group_;
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
  auto engine = std::make_shared<mpi::Engine>();
  if (announced > 1 && engine->size() == 1) {
    throw base::UserError(
        "the launcher started {} ranks but MPI reports 1: the program was built with another MPI "
        "than the launcher's; "
        "use the mpirun of the MPI that CMake found",
        announced);
  }
  auto group = std::make_shared<mpi::Group>();
  for (int r = 0; r < engine->size(); ++r) group->world_ranks.push_back(r);
  group->rank = engine->rank();
  return std::make_unique<MpiGroup>(std::move(engine), std::move(group));
}

}  // namespace varscale::comm
