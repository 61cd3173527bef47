#include "records/run_file.hpp"

#include "records/record_file_impl.hpp"

namespace varscale::records {

namespace table {

constexpr Field kStepFields[] = {
    VARSCALE_INT(StepRow, step),        VARSCALE_INT(StepRow, segment),
    VARSCALE_REAL(StepRow, images),     VARSCALE_REAL(StepRow, tokens),
    VARSCALE_REAL(StepRow, flops),      VARSCALE_REAL(StepRow, lr),
    VARSCALE_REAL(StepRow, loss_mean),  VARSCALE_REAL(StepRow, loss_tail),
    VARSCALE_REAL(StepRow, err_mean),   VARSCALE_REAL(StepRow, err_tail),
    VARSCALE_REAL(StepRow, grad_norm),  VARSCALE_INT(StepRow, skipped),
    VARSCALE_REAL(StepRow, step_s),     VARSCALE_REAL(StepRow, busy_min_s),
    VARSCALE_REAL(StepRow, busy_max_s), VARSCALE_INT(StepRow, slowest_rank),
    VARSCALE_REAL(StepRow, data_wait_s), VARSCALE_REAL(StepRow, comm_wait_s),
    VARSCALE_INT(StepRow, memory_bytes), VARSCALE_REAL(StepRow, tokens_per_s),
    VARSCALE_REAL(StepRow, tflops),     VARSCALE_REAL(StepRow, mfu)};
constexpr Field kEvalFields[] = {
    VARSCALE_INT(EvalRow, step),       VARSCALE_INT(EvalRow, segment),
    VARSCALE_REAL(EvalRow, images),    VARSCALE_REAL(EvalRow, tokens),
    VARSCALE_REAL(EvalRow, flops),     VARSCALE_REAL(EvalRow, lr),
    VARSCALE_REAL(EvalRow, loss_mean), VARSCALE_REAL(EvalRow, loss_tail),
    VARSCALE_REAL(EvalRow, err_mean),  VARSCALE_REAL(EvalRow, err_tail),
    VARSCALE_INT(EvalRow, val_images), VARSCALE_INT(EvalRow, whole_set),
    VARSCALE_REAL(EvalRow, eval_s)};
constexpr Field kScaleFields[] = {VARSCALE_INT(ScaleRow, step), VARSCALE_INT(ScaleRow, scale),
                                  VARSCALE_REAL(ScaleRow, loss), VARSCALE_REAL(ScaleRow, err)};
template <>
struct TableOf<StepRow> {
  static constexpr const char* kName = "steps";
  static constexpr std::span<const Field> kFields = kStepFields;
  static constexpr bool kStrictSteps = true;
};
template <>
struct TableOf<EvalRow> {
  static constexpr const char* kName = "eval";
  static constexpr std::span<const Field> kFields = kEvalFields;
  static constexpr bool kStrictSteps = false;
};
template <>
struct TableOf<ScaleRow> {
  static constexpr const char* kName = "scales";
  static constexpr std::span<const Field> kFields = kScaleFields;
  static constexpr bool kStrictSteps = false;
};
static_assert(sizeof(StepRow) == 8 * std::size(kStepFields), "a field is missing in the table");
static_assert(sizeof(EvalRow) == 8 * std::size(kEvalFields), "a field is missing in the table");
static_assert(sizeof(ScaleRow) == 8 * std::size(kScaleFields), "a field is missing in the table");

}  // namespace table

template <>
struct Schema<RunTables> {
  static constexpr int64_t kVersion = 2;
  static constexpr const char* kKind = "run file";
  static constexpr size_t kTables = 3;
  template <class Tables, class F>
  static void each(Tables& tables, F f) {
    f(tables.steps), f(tables.eval), f(tables.scales);
  }
};

template class RecordFile<RunTables>;
template void RunFile::append(const StepRow&);
template void RunFile::append(const EvalRow&);
template void RunFile::append(const ScaleRow&);

void append_evaluation(RunFile& run, const EvalRow& row, const std::vector<ScaleRow>& scales) {
  for (const ScaleRow& scale : scales)
    VARSCALE_CHECK(scale.step == row.step, "scale row of step {} beside the evaluation of step {}",
                   scale.step, row.step);
  run.append(row);
  for (const ScaleRow& scale : scales) run.append(scale);
}

RunTables read_run(const std::filesystem::path& path) { return read_tables<RunTables>(path); }

void write_run(const std::filesystem::path& path, const RunTables& tables) { write_tables(path, tables); }

void export_csv(const RunTables& tables, const std::filesystem::path& folder, const std::string& prefix) {
  base::require_writable_folder(folder);
  base::write_file_atomic(folder / (prefix + "steps.csv"), table::csv(tables.steps));
  base::write_file_atomic(folder / (prefix + "eval.csv"), table::csv(tables.eval));
  base::write_file_atomic(folder / (prefix + "scales.csv"), table::csv(tables.scales));
}

}  // namespace varscale::records
