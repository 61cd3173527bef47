// run.h5: what one training run has measured, readable by pandas and h5py.
//
//   RunFile run = RunFile::create(path, facts);
//   run.append(StepRow{...}); run.append(EvalRow{...}, scale_rows); run.flush();
//   RunTables tables = read_run(path);               // later, by the fit
//   pandas: pd.read_hdf("run.h5", "steps")
//
// Layout   /steps, /eval, /scales: 1-D compound tables, chunked, little-endian 64-bit fields with
//          the members' names; every fact is a root attribute; schema_version is 2.
// Order    As records/record_file.hpp. Checkpoints carry write_run() of the rows so far, so recovery never depends on
//          a half-written file: a file that read_run() refuses is rebuilt by recreate().
// Errors   UserError naming the file: not HDF5, truncated, another schema, a missing table, column
//          or order of rows. SystemError: I/O.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "records/record_file.hpp"

namespace varscale::records {

// One optimiser step. Losses are nats per token, errors fractions in [0, 1], over the whole batch.
struct StepRow {
  int64_t step;     // 1 after the first update
  int64_t segment;  // how often the run had been started when this row was written, from 0
  double images;    // seen so far, this step included
  double tokens;    // images x tokens per image
  double flops;     // training FLOPs so far by the file's flop_formula
  double lr;
  double loss_mean, loss_tail;  // over all tokens; over the last scale
  double err_mean, err_tail;    // 1 - top-1 accuracy
  double grad_norm;             // before clipping
  int64_t skipped;              // 1: loss or gradient was not finite, and the weights stayed
  // Of the group of ranks. Seconds are wall time, or the device's where the model is on one.
  double step_s;                   // the slowest rank's
  double busy_min_s, busy_max_s;   // the step less waiting for other ranks: fastest, slowest rank
  int64_t slowest_rank;            // who had busy_max_s
  double data_wait_s, comm_wait_s; // part of the step spent waiting, the longest of any rank
  int64_t memory_bytes;            // most bytes of tensors any rank has held so far
  double tokens_per_s, tflops;     // of all ranks together
  double mfu;                      // share of the devices' peak; NaN where the peak is not known
};

// One pass over the validation set (or its recorded subset) with the weights after `step`.
struct EvalRow {
  int64_t step, segment;
  double images, tokens, flops, lr;
  double loss_mean, loss_tail, err_mean, err_tail;
  int64_t val_images;  // how many validation images were scored
  int64_t whole_set;   // 1: the whole validation set, 0: the fixed subset
  double eval_s;
};

struct ScaleRow {
  int64_t step, scale;  // scale from 0
  double loss, err;     // validation, mean over the tokens of that scale
};

struct RunTables {
  Facts facts;
  std::vector<StepRow> steps;
  std::vector<EvalRow> eval;
  std::vector<ScaleRow> scales;
};

using RunFile = RecordFile<RunTables>;
// An evaluation, and its rows by scale, all of one step.
void append_evaluation(RunFile& run, const EvalRow& row, const std::vector<ScaleRow>& scales);

RunTables read_run(const std::filesystem::path& path);
// A complete file: aside, fsync, rename.
void write_run(const std::filesystem::path& path, const RunTables& tables);
// steps.csv, eval.csv, scales.csv in `folder`, `prefix` before each name; columns are the field names, 17
// significant digits.
void export_csv(const RunTables& tables, const std::filesystem::path& folder, const std::string& prefix = {});

}  // namespace varscale::records
