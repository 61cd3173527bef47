#include "records/sweep_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <utility>

#include "base/error.hpp"
#include "records/hdf5.hpp"

namespace varscale::records {

using hdf5::Handle;

namespace {

using Path = std::filesystem::path;

constexpr int64_t kSweepFileSchema = 1;

// The columns of /summary and where they lie in a packed row, whose texts are as long as the longest.
class Columns {
 public:
  explicit Columns(const std::vector<SweepFileRow>& rows) {
    text("id", &SweepFileRow::id, rows);
    text("role", &SweepFileRow::role, rows);
    text("state", &SweepFileRow::state, rows);
    integer("depth", &SweepFileRow::depth);
    integer("seed", &SweepFileRow::seed);
    integer("parameters", &SweepFileRow::parameters);
    real("flops", &SweepFileRow::flops);
    integer("images", &SweepFileRow::images);
    integer("step", &SweepFileRow::step);
    integer("steps", &SweepFileRow::steps);
    real("loss_mean", &SweepFileRow::loss_mean);
    real("loss_tail", &SweepFileRow::loss_tail);
    real("err_mean", &SweepFileRow::err_mean);
    real("err_tail", &SweepFileRow::err_tail);
  }

  Handle type() const {
    Handle type(H5Tcreate(H5T_COMPOUND, size_), H5Tclose);
    for (const Column& column : columns_) H5Tinsert(type.get(), column.name, column.offset, column.type.get());
    return type;
  }

  std::string packed(const std::vector<SweepFileRow>& rows) const {
    std::string bytes(size_ * rows.size(), '\0');
    for (size_t i = 0; i < rows.size(); ++i)
      for (const Column& column : columns_) column.put(rows[i], bytes.data() + i * size_ + column.offset);
    return bytes;
  }

 private:
  struct Column {
    const char* name;
    size_t offset;
    Handle type;
    std::function<void(const SweepFileRow&, char*)> put;
  };

  void text(const char* name, std::string SweepFileRow::*member, const std::vector<SweepFileRow>& rows) {
    size_t length = 1;
    for (const SweepFileRow& row : rows) length = std::max(length, (row.*member).size());
    Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(type.get(), length);
    H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
    add(name, std::move(type), length, [member](const SweepFileRow& row, char* at) {
      std::memcpy(at, (row.*member).data(), (row.*member).size());
    });
  }
  void integer(const char* name, int64_t SweepFileRow::*member) {
    number(name, H5T_STD_I64LE, member);
  }
  void real(const char* name, double SweepFileRow::*member) { number(name, H5T_IEEE_F64LE, member); }
  template <class T>
  void number(const char* name, hid_t type, T SweepFileRow::*member) {
    add(name, Handle(H5Tcopy(type), H5Tclose), sizeof(T), [member](const SweepFileRow& row, char* at) {
      std::memcpy(at, &(row.*member), sizeof(T));
    });
  }
  void add(const char* name, Handle type, size_t bytes, std::function<void(const SweepFileRow&, char*)> put) {
    columns_.push_back({name, size_, std::move(type), std::move(put)});
    size_ += bytes;
  }

  std::vector<Column> columns_;
  size_t size_ = 0;
};

void write_summary(const Handle& file, const Path& path, const std::vector<SweepFileRow>& rows) {
  const Columns columns(rows);
  const hsize_t count = rows.size();
  const Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose), type = columns.type();
  errno = 0;
  const Handle table(H5Dcreate2(file.get(), "summary", type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                     H5Dclose);
  hdf5::require(static_cast<bool>(table), path, "create table summary");
  if (rows.empty()) return;
  hdf5::require(
      H5Dwrite(table.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, columns.packed(rows).data()) >= 0,
      path, "write table summary");
}

void write_links(const Handle& file, const Path& path, const std::vector<SweepFileRow>& rows) {
  errno = 0;
  const Handle group(H5Gcreate2(file.get(), "runs", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
  hdf5::require(static_cast<bool>(group), path, "create group runs");
  for (const SweepFileRow& row : rows) {
    const Path run = Path("runs") / row.id / "run.h5";
    std::error_code error;
    if (!std::filesystem::exists(path.parent_path() / run, error)) continue;
    hdf5::require(
        H5Lcreate_external(run.c_str(), "/", group.get(), row.id.c_str(), H5P_DEFAULT, H5P_DEFAULT) >= 0,
        path, "link run " + row.id);
  }
}

}  // namespace

void write_sweep_file(const Path& path, const std::vector<SweepFileRow>& rows) {
  hdf5::write_file(path, [&](const Handle& file) {
    hdf5::set_attribute(file.get(), path, "schema_version", kSweepFileSchema);
    write_links(file, path, rows);
    write_summary(file, path, rows);
  });
}

}  // namespace varscale::records
