#include "checkpoint/saver.hpp"

#include <ATen/ATen.h>

#include <atomic>

#include "base/error.hpp"
#include "base/file.hpp"

namespace varscale::checkpoint {

namespace {

nlohmann::json entry_of(const Piece& piece, const std::string& file) {
  return {{"name", piece.name},
          {"shape", piece.shape},
          {"axis", piece.axis},
          {"rows", {piece.begin, piece.end}},
          {"file", file}};
}

}  // namespace

struct Saver::Flight {
  State state;
  std::unique_ptr<base::AtomicFolder> aside;  // on the first rank
  std::filesystem::path temporary;
  bool already_safe = false;
  std::atomic<bool> done = false;
  std::string failure;       // of the thread
  nlohmann::json files, entries;  // what this rank adds to the manifest
  std::thread thread;

  void write(int rank) {
    try {
      if (!state.pieces.empty()) {
        const std::string name = rank_file(rank);
        nn::NamedTensors tensors;
        for (const Piece& piece : state.pieces) tensors.push_back({piece.name, piece.tensor});
        nn::save_tensors(temporary / name, tensors);
        files[name] = file_facts(temporary / name);
        for (const Piece& piece : state.pieces) entries.push_back(entry_of(piece, name));
      }
      if (rank == 0) {
        state.write_rows(temporary / kRows);
        files[kRows] = file_facts(temporary / kRows);
      }
    } catch (const std::exception& error) {
      failure = error.what();
    }
    done = true;
  }
};

Saver::Saver(std::filesystem::path folder, Keep keep, comm::Communicator& world,
             std::function<void()> before_publish)
    : folder_(std::move(folder)),
      keep_(std::move(keep)),
      world_(world),
      before_publish_(std::move(before_publish)) {}

Saver::~Saver() {
  if (flight_ && flight_->thread.joinable()) flight_->thread.join();
}

bool Saver::busy() const { return flight_ && !flight_->done; }

void Saver::begin(State state) {
  VARSCALE_CHECK(!flight_, "a checkpoint is already being written");
  auto flight = std::make_unique<Flight>();
  const std::filesystem::path target = CheckpointFolder(folder_, keep_).path_of(state.step);
  comm::agree_on(world_, "begin checkpoint", [&] {
    if (world_.rank() != 0) return;
    std::filesystem::create_directory(folder_);
    if (std::filesystem::exists(target / kManifest)) {  // this very state is already safe
      flight->already_safe = true;
      return;
    }
    std::filesystem::remove_all(target);
    flight->aside = std::make_unique<base::AtomicFolder>(target);
    flight->temporary = flight->aside->temporary();
  });
  flight->temporary = world_.broadcast_bytes(flight->temporary.string(), 0, "checkpoint folder");
  flight->already_safe = flight->temporary.empty();
  std::erase_if(state.pieces, [](const Piece& piece) { return piece.tensor.numel() == 0; });
  flight->state = std::move(state);
  flight_ = std::move(flight);
  if (flight_->already_safe) {
    flight_->done = true;
    return;
  }
  for (Piece& piece : flight_->state.pieces)
    piece.tensor = piece.tensor.detach().to(at::kCPU, /*non_blocking=*/false, /*copy=*/true);
  flight_->thread = std::thread([flight = flight_.get(), rank = world_.rank()] { flight->write(rank); });
}

void Saver::publish() {
  VARSCALE_CHECK(flight_, "no checkpoint is being written");
  const std::unique_ptr<Flight> flight = std::move(flight_);
  if (flight->thread.joinable()) flight->thread.join();
  if (flight->already_safe) return;
  world_.agree(flight->failure, /*user=*/false, "write checkpoint");
  // The lists of all ranks, one after the other.
  nlohmann::json files, entries = nlohmann::json::array();
  const nlohmann::json mine{{"files", flight->files}, {"entries", flight->entries}};
  for (int rank = 0; rank < world_.size(); ++rank) {
    const auto part =
        nlohmann::json::parse(world_.broadcast_bytes(mine.dump(), rank, "checkpoint parts"));
    for (const auto& [name, facts] : part["files"].items()) files[name] = facts;
    for (const auto& entry : part["entries"]) entries.push_back(entry);
  }
  comm::agree_on(world_, "publish checkpoint", [&] {
    if (world_.rank() != 0) return;
    nlohmann::ordered_json manifest;
    manifest["schema"] = kSchema;
    manifest["run_id"] = flight->state.identity.run_id;
    manifest["config_hash"] = flight->state.identity.config_hash;
    manifest["step"] = flight->state.step;
    manifest["segment"] = flight->state.segment;
    manifest["ranks"] = world_.size();
    manifest["files"] = files;
    manifest["tensors"] = entries;
    base::write_file_atomic(flight->temporary / kManifest, manifest.dump(1));
    if (before_publish_) before_publish_();
    flight->aside->commit();
    CheckpointFolder(folder_, keep_).prune();
  });
}

void Saver::save(State state) {
  begin(std::move(state));
  publish();
}

}  // namespace varscale::checkpoint
