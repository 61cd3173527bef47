#include "records/run_file.hpp"

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include "base/error.hpp"
#include "base/file.hpp"
#include "records/hdf5.hpp"

namespace varscale::records {

using base::UserError;
using hdf5::Handle;
using Path = std::filesystem::path;

namespace {

constexpr int64_t kSchemaVersion = 2;
constexpr hsize_t kChunkRows = 1024;
constexpr uint64_t kLargestBatch = uint64_t{1} << 20;  // rows

struct Field {
  const char* name;
  size_t offset;
  bool real;  // double, otherwise int64
};

#define VARSCALE_INT(Row, member) \
  { #member, offsetof(Row, member), false }
#define VARSCALE_REAL(Row, member) \
  { #member, offsetof(Row, member), true }

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
#undef VARSCALE_INT
#undef VARSCALE_REAL

// What the code below needs to know of a row type. Only /steps has one row a step.
template <class Row>
struct TableOf;
template <>
struct TableOf<StepRow> {
  static constexpr const char* kName = "steps";
  static constexpr std::span<const Field> kFields = kStepFields;
  static constexpr bool kStrictSteps = true;
  static std::vector<StepRow>& rows(RunTables& tables) { return tables.steps; }
};
template <>
struct TableOf<EvalRow> {
  static constexpr const char* kName = "eval";
  static constexpr std::span<const Field> kFields = kEvalFields;
  static constexpr bool kStrictSteps = false;
  static std::vector<EvalRow>& rows(RunTables& tables) { return tables.eval; }
};
template <>
struct TableOf<ScaleRow> {
  static constexpr const char* kName = "scales";
  static constexpr std::span<const Field> kFields = kScaleFields;
  static constexpr bool kStrictSteps = false;
  static std::vector<ScaleRow>& rows(RunTables& tables) { return tables.scales; }
};
static_assert(sizeof(StepRow) == 8 * std::size(kStepFields), "a field is missing in the table");
static_assert(sizeof(EvalRow) == 8 * std::size(kEvalFields), "a field is missing in the table");
static_assert(sizeof(ScaleRow) == 8 * std::size(kScaleFields), "a field is missing in the table");

template <class Row>
Handle row_type(bool in_memory) {
  Handle type(H5Tcreate(H5T_COMPOUND, sizeof(Row)), H5Tclose);
  for (const Field& field : TableOf<Row>::kFields) {
    const hid_t of_real = in_memory ? H5T_NATIVE_DOUBLE : H5T_IEEE_F64LE;
    const hid_t of_int = in_memory ? H5T_NATIVE_INT64 : H5T_STD_I64LE;
    H5Tinsert(type.get(), field.name, field.offset, field.real ? of_real : of_int);
  }
  return type;
}

template <class Row>
Handle create_table(const Handle& file, const Path& path) {
  const hsize_t none = 0, unlimited = H5S_UNLIMITED;
  const Handle space(H5Screate_simple(1, &none, &unlimited), H5Sclose);
  const Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_chunk(layout.get(), 1, &kChunkRows);
  const Handle type = row_type<Row>(false);
  Handle table(H5Dcreate2(file.get(), TableOf<Row>::kName, type.get(), space.get(), H5P_DEFAULT,
                          layout.get(), H5P_DEFAULT),
               H5Dclose);
  hdf5::require(static_cast<bool>(table), path, fmt::format("create table {}", TableOf<Row>::kName));
  return table;
}

// Writes rows[begin, end) behind the `begin` rows that the table has.
template <class Row>
void append_rows(const Handle& table, const Path& path, const std::vector<Row>& rows,
                 size_t begin) {
  if (begin == rows.size()) return;
  const hsize_t first = begin, count = rows.size() - begin, length = rows.size();
  const std::string doing = fmt::format("append to table {}", TableOf<Row>::kName);
  errno = 0;
  hdf5::require(H5Dset_extent(table.get(), &length) >= 0, path, doing);
  const Handle file_space(H5Dget_space(table.get()), H5Sclose);
  hdf5::require(
      H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, &first, nullptr, &count, nullptr) >= 0,
      path, doing);
  const Handle memory_space(H5Screate_simple(1, &count, nullptr), H5Sclose);
  const Handle type = row_type<Row>(true);
  hdf5::require(H5Dwrite(table.get(), type.get(), memory_space.get(), file_space.get(), H5P_DEFAULT,
                         rows.data() + begin) >= 0,
                path, doing);
}

template <class Row>
void write_table(const Handle& file, const Path& path, const std::vector<Row>& rows) {
  append_rows(create_table<Row>(file, path), path, rows, 0);
}

void check_facts(const Facts& facts) {
  VARSCALE_CHECK(!facts.contains("schema_version"), "schema_version is set by the run file itself");
}

template <class Row>
bool follows(const Row& row, const Row& before) {
  return TableOf<Row>::kStrictSteps ? row.step > before.step : row.step >= before.step;
}

// A kill can leave a table extended before the new rows' chunk is in place: zeros at the end.
template <class Row>
void drop_zero_tail(std::vector<Row>& rows) {
  const Row zero{};
  while (!rows.empty() && std::memcmp(&rows.back(), &zero, sizeof(Row)) == 0) rows.pop_back();
}

template <class Row>
void check_table_type(const Handle& table, const Path& path) {
  const char* name = TableOf<Row>::kName;
  const Handle type(H5Dget_type(table.get()), H5Tclose), space(H5Dget_space(table.get()), H5Sclose);
  if (H5Tget_class(type.get()) != H5T_COMPOUND || H5Sget_simple_extent_ndims(space.get()) != 1)
    throw UserError("{}: /{} is not a one-dimensional compound table", path.string(), name);
  for (const Field& field : TableOf<Row>::kFields) {
    const int index = H5Tget_member_index(type.get(), field.name);
    if (index < 0)
      throw UserError("{}: table /{} has no column {}", path.string(), name, field.name);
    const auto member = static_cast<unsigned>(index);
    const Handle member_type(H5Tget_member_type(type.get(), member), H5Tclose);
    const H5T_class_t wanted = field.real ? H5T_FLOAT : H5T_INTEGER;
    if (H5Tget_class(member_type.get()) != wanted || H5Tget_size(member_type.get()) != 8)
      throw UserError("{}: column {} of table /{} is not {}", path.string(), field.name, name,
                      field.real ? "a 64-bit float" : "a 64-bit integer");
  }
  const auto wanted = TableOf<Row>::kFields.size();
  const auto found = static_cast<size_t>(H5Tget_nmembers(type.get()));
  if (found != wanted)
    throw UserError("{}: table /{} has {} columns; expected {}", path.string(), name, found,
                    wanted);
}

// The index of a table's chunks has no checksum, and HDF5 1.10 believes the sizes in it.
void check_chunks(const Handle& table, const Handle& space, const Path& path, const char* name) {
  const Handle layout(H5Dget_create_plist(table.get()), H5Pclose), type(H5Dget_type(table.get()), H5Tclose);
  hsize_t rows = 0, count = 0;
  if (H5Pget_layout(layout.get()) != H5D_CHUNKED || H5Pget_nfilters(layout.get()) != 0) return;
  bool sound = H5Pget_chunk(layout.get(), 1, &rows) == 1 && rows > 0 &&
               H5Dget_num_chunks(table.get(), space.get(), &count) >= 0;
  for (hsize_t i = 0; sound && i < count; ++i) {
    hsize_t first = 0, bytes = 0;
    unsigned filters = 0;
    haddr_t place = 0;
    sound = H5Dget_chunk_info(table.get(), space.get(), i, &first, &filters, &place, &bytes) >= 0 &&
            first % rows == 0 && filters == 0 && bytes == rows * H5Tget_size(type.get());
  }
  if (!sound) throw UserError("{}: the index of table /{} is damaged", path.string(), name);
}

template <class Row>
void read_table(const Handle& file, const Path& path, RunTables& tables) {
  const char* name = TableOf<Row>::kName;
  if (H5Lexists(file.get(), name, H5P_DEFAULT) <= 0)
    throw UserError("{}: table /{} is missing; expected a run file", path.string(), name);
  const Handle table(H5Dopen2(file.get(), name, H5P_DEFAULT), H5Dclose);
  if (!table)
    throw UserError("{}: /{} cannot be opened as a table: {}", path.string(), name, hdf5::reason());
  check_table_type<Row>(table, path);

  const Handle space(H5Dget_space(table.get()), H5Sclose);
  const auto count = static_cast<uint64_t>(H5Sget_simple_extent_npoints(space.get()));
  // A kill leaves at most one batch of rows without storage, and these read as zeros; a damaged
  // length must not ask for all memory.
  const uint64_t stored = H5Dget_storage_size(table.get()) / sizeof(Row);
  std::vector<Row>& rows = TableOf<Row>::rows(tables);
  if (count > stored + kLargestBatch)
    throw UserError("{}: table /{} says {} rows, but only {} are stored; the file is damaged",
                    path.string(), name, count, stored);
  check_chunks(table, space, path, name);
  rows.resize(count);
  const Handle type = row_type<Row>(true);
  if (count > 0 && H5Dread(table.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, rows.data()) < 0)
    throw UserError("{}: table /{} cannot be read: {}", path.string(), name, hdf5::reason());
  drop_zero_tail(rows);
  for (size_t i = 1; i < rows.size(); ++i)
    if (!follows(rows[i], rows[i - 1]))
      throw UserError(
          "{}: row {} of table /{} has step {} after step {}; expected increasing steps",
          path.string(), i, name, rows[i].step, rows[i - 1].step);
}

template <class Row>
void check_order(const std::vector<Row>& rows) {
  for (size_t i = 1; i < rows.size(); ++i)
    VARSCALE_CHECK(follows(rows[i], rows[i - 1]), "row {} of {} has step {} after step {}", i,
                   TableOf<Row>::kName, rows[i].step, rows[i - 1].step);
}

template <class Row>
void add_row(std::vector<Row>& rows, const Row& row) {
  VARSCALE_CHECK(rows.empty() || follows(row, rows.back()), "a row of {} has step {} after step {}",
                 TableOf<Row>::kName, row.step, rows.back().step);
  rows.push_back(row);
}

template <class Row>
std::string csv(const std::vector<Row>& rows) {
  std::string text;
  for (const Field& field : TableOf<Row>::kFields) {
    if (!text.empty()) text += ',';
    text += field.name;
  }
  text += '\n';
  for (const Row& row : rows) {
    const char* separator = "";
    for (const Field& field : TableOf<Row>::kFields) {
      const auto* at = reinterpret_cast<const std::byte*>(&row) + field.offset;
      if (field.real) {
        double value = 0;
        std::memcpy(&value, at, sizeof value);
        text += fmt::format("{}{:.17g}", separator, value);
      } else {
        int64_t value = 0;
        std::memcpy(&value, at, sizeof value);
        text += fmt::format("{}{}", separator, value);
      }
      separator = ",";
    }
    text += '\n';
  }
  return text;
}

}  // namespace

struct RunFile::Impl {
  Path path;
  RunTables tables;
  Handle file, steps, eval, scales;
  size_t written_steps = 0, written_eval = 0, written_scales = 0;

  Handle open_table(const char* name) const {
    Handle table(H5Dopen2(file.get(), name, H5P_DEFAULT), H5Dclose);
    hdf5::require(static_cast<bool>(table), path, std::string("open table ") + name);
    return table;
  }

  // Runs a write; where it fails, the file is given up without being closed.
  template <class Write>
  void writing(Write write) {
    const hdf5::QuietErrors quiet;
    try {
      write();
    } catch (...) {
      for (Handle* handle : {&steps, &eval, &scales, &file}) handle->forget();
      throw;
    }
  }

  void flush() {
    writing([&] {
      append_rows(steps, path, tables.steps, written_steps);
      written_steps = tables.steps.size();
      append_rows(eval, path, tables.eval, written_eval);
      written_eval = tables.eval.size();
      append_rows(scales, path, tables.scales, written_scales);
      written_scales = tables.scales.size();
      errno = 0;
      hdf5::require(H5Fflush(file.get(), H5F_SCOPE_GLOBAL) >= 0, path, "flush the file");
    });
  }
};

RunFile::RunFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RunFile::RunFile(RunFile&&) noexcept = default;

RunFile& RunFile::operator=(RunFile&& other) noexcept {
  RunFile old(std::move(*this));  // its rows are written when it goes
  impl_ = std::move(other.impl_);
  return *this;
}

RunFile::~RunFile() {
  if (impl_ == nullptr) return;
  const hdf5::QuietErrors quiet;
  try {
    if (impl_->file) impl_->flush();
  } catch (const std::exception&) {
    // A caller who needs to know calls flush() or sync(); a destructor cannot say it.
  }
  impl_.reset();
}

RunFile RunFile::create(const Path& path, const Facts& facts) {
  return recreate(path, RunTables{.facts = facts, .steps = {}, .eval = {}, .scales = {}});
}

RunFile RunFile::recreate(const Path& path, RunTables tables) {
  tables.facts.erase("schema_version");  // there when the tables come from read_run()
  write_run(path, tables);
  const hdf5::QuietErrors quiet;
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->file = hdf5::open_for_appending(path);
  impl->steps = impl->open_table("steps");
  impl->eval = impl->open_table("eval");
  impl->scales = impl->open_table("scales");
  impl->written_steps = tables.steps.size();
  impl->written_eval = tables.eval.size();
  impl->written_scales = tables.scales.size();
  impl->tables = std::move(tables);
  return RunFile(std::move(impl));
}

void RunFile::append(const StepRow& row) { add_row(impl_->tables.steps, row); }

void RunFile::append(const EvalRow& row, const std::vector<ScaleRow>& scales) {
  for (const ScaleRow& scale : scales)
    VARSCALE_CHECK(scale.step == row.step, "scale row of step {} beside the evaluation of step {}",
                   scale.step, row.step);
  add_row(impl_->tables.eval, row);
  for (const ScaleRow& scale : scales) add_row(impl_->tables.scales, scale);
}

void RunFile::set_fact(const std::string& name, const Fact& value) {
  VARSCALE_CHECK(name != "schema_version", "schema_version is set by the run file itself");
  impl_->writing([&] { hdf5::set_attribute(impl_->file.get(), impl_->path, name, value); });
  impl_->tables.facts.insert_or_assign(name, value);
}

void RunFile::flush() { impl_->flush(); }

void RunFile::sync() {
  impl_->flush();
  base::fsync_path(impl_->path);
}

const RunTables& RunFile::tables() const noexcept { return impl_->tables; }

RunTables read_run(const Path& path) {
  const hdf5::QuietErrors quiet;
  const Handle file = hdf5::open_for_reading(path);
  hdf5::check_texts(path);
  const htri_t has_version = H5Aexists(file.get(), "schema_version");
  if (has_version < 0) throw UserError("{}: its attributes cannot be read: {}", path.string(), hdf5::reason());
  if (has_version == 0) throw UserError("{}: attribute schema_version is missing; expected a run file", path.string());
  const auto version = hdf5::read_attribute_as<int64_t>(file.get(), path, "schema_version");
  if (version != kSchemaVersion)
    throw UserError("{}: schema_version is {}; this program reads {}", path.string(), version,
                    kSchemaVersion);
  RunTables tables;
  for (const std::string& name : hdf5::attribute_names(file.get(), path))
    if (name != "schema_version")
      tables.facts.emplace(name, hdf5::read_attribute(file.get(), path, name));
  read_table<StepRow>(file, path, tables);
  read_table<EvalRow>(file, path, tables);
  read_table<ScaleRow>(file, path, tables);
  return tables;
}

void write_run(const Path& path, const RunTables& tables) {
  check_facts(tables.facts);
  check_order(tables.steps);
  check_order(tables.eval);
  check_order(tables.scales);
  hdf5::write_file(path, [&](const Handle& file) {
    hdf5::set_attribute(file.get(), path, "schema_version", kSchemaVersion);
    for (const auto& [name, value] : tables.facts)
      hdf5::set_attribute(file.get(), path, name, value);
    write_table(file, path, tables.steps);
    write_table(file, path, tables.eval);
    write_table(file, path, tables.scales);
  });
}

void export_csv(const RunTables& tables, const Path& folder, const std::string& prefix) {
  base::require_writable_folder(folder);
  base::write_file_atomic(folder / (prefix + "steps.csv"), csv(tables.steps));
  base::write_file_atomic(folder / (prefix + "eval.csv"), csv(tables.eval));
  base::write_file_atomic(folder / (prefix + "scales.csv"), csv(tables.scales));
}

}  // namespace varscale::records
