// TensorBoard's event files: the scalars of a run that is being trained.
//
//   EventFile events(run_folder, tables);    // run_folder/events.out.tfevents.<seconds>.<host>.<pid>
//   events.append(step_row);                 // buffered; reaches the file about once a second
//   events.flush();
//   shell: tensorboard --logdir results/depth/runs
//
// Scalars  train/{loss_mean,loss_tail,err_mean,lr,grad_norm}, rates/images_per_s at each step;
//          eval/{loss_mean,loss_tail,err_mean} at each evaluation.
// Layout   TFRecord: u64 length, masked CRC-32C of the length, an Event in protobuf's encoding, masked
//          CRC-32C of it; little-endian. The first event is file_version "brain.Event:2".
// Order    The constructor replaces what event files the folder has by one with the tables' rows, so
//          that a run that goes on has every row once. Such rows get the times that their steps' seconds
//          give, counted back from now; rows that are appended the time of day.
// Errors   SystemError: I/O. Never flushed to the disk: run.h5 has the same figures.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "records/run_file.hpp"

namespace varscale::records {

class EventFile {
 public:
  EventFile(const std::filesystem::path& folder, const RunTables& tables);
  EventFile(EventFile&& other) noexcept;
  EventFile& operator=(EventFile&&) = delete;
  ~EventFile();  // flushes

  void append(const StepRow& row);
  void append(const EvalRow& row);
  void flush();
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  void add(const std::string& event);
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::string buffer_;
  std::chrono::steady_clock::time_point flushed_;
};

// CRC-32C (Castagnoli), reflected, as RFC 3720 has it; and with the mask of TFRecord.
uint32_t crc32c(std::string_view bytes) noexcept;
uint32_t masked_crc32c(std::string_view bytes) noexcept;

}  // namespace varscale::records
