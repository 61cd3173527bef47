// Tables of rows in HDF5 files: what run files and tokenizers' records share. Private to records.
//
//   template <> struct TableOf<StepRow> { kName, kFields, kStrictSteps };
//   table::write(file, path, rows); table::append(handle, path, rows, begin); table::read(file, path, "run file", rows);
//
// Layout   1-D compound tables, chunked, little-endian 64-bit fields with the members' names.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "records/hdf5.hpp"

namespace varscale::records::table {

using base::UserError;
using hdf5::Handle;
using Path = std::filesystem::path;

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

// What is to be known of a row type, whose members are all of 8 bytes, `step` the first: the table's name, its
// fields, and whether it has at most one row a step.
template <class Row>
struct TableOf;

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
Handle create(const Handle& file, const Path& path) {
  const hsize_t none = 0, unlimited = H5S_UNLIMITED;
  const Handle space(H5Screate_simple(1, &none, &unlimited), H5Sclose);
  const Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(layout.get(), false);  // equal rows, equal bytes, whenever they are written
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
void append(const Handle& table, const Path& path, const std::vector<Row>& rows, size_t begin) {
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
void write(const Handle& file, const Path& path, const std::vector<Row>& rows) {
  append(create<Row>(file, path), path, rows, 0);
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
void check_type(const Handle& table, const Path& path) {
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
inline void check_chunks(const Handle& table, const Handle& space, const Path& path, const char* name) {
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
void read(const Handle& file, const Path& path, const char* kind, std::vector<Row>& rows) {
  const char* name = TableOf<Row>::kName;
  if (H5Lexists(file.get(), name, H5P_DEFAULT) <= 0)
    throw UserError("{}: table /{} is missing; expected a {}", path.string(), name, kind);
  const Handle table(H5Dopen2(file.get(), name, H5P_DEFAULT), H5Dclose);
  if (!table)
    throw UserError("{}: /{} cannot be opened as a table: {}", path.string(), name, hdf5::reason());
  check_type<Row>(table, path);

  const Handle space(H5Dget_space(table.get()), H5Sclose);
  const auto count = static_cast<uint64_t>(H5Sget_simple_extent_npoints(space.get()));
  // A kill leaves at most one batch of rows without storage, and these read as zeros; a damaged
  // length must not ask for all memory.
  const uint64_t stored = H5Dget_storage_size(table.get()) / sizeof(Row);
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

}  // namespace varscale::records::table
