// What RecordFile<Tables> does, for the files that instantiate it. Private to records.
#pragma once

#include <array>
#include <type_traits>
#include <utility>

#include "base/file.hpp"
#include "records/record_file.hpp"
#include "records/table.hpp"

namespace varscale::records {

// Of a kind of file: kVersion, kKind ("run file"), kTables, how many there are, and each(tables, f), which calls f with every vector of rows,
// always in the same order.
template <class Tables>
struct Schema;

template <class Rows>
using RowOf = typename std::remove_cvref_t<Rows>::value_type;

// A complete file: aside, fsync, rename.
template <class Tables>
void write_tables(const std::filesystem::path& path, const Tables& tables) {
  VARSCALE_CHECK(!tables.facts.contains("schema_version"), "schema_version is set by the file itself");
  Schema<Tables>::each(tables, [](const auto& rows) { table::check_order(rows); });
  hdf5::write_file(path, [&](const hdf5::Handle& file) {
    hdf5::set_attribute(file.get(), path, "schema_version", Schema<Tables>::kVersion);
    for (const auto& [name, value] : tables.facts) hdf5::set_attribute(file.get(), path, name, value);
    Schema<Tables>::each(tables, [&](const auto& rows) { table::write(file, path, rows); });
  });
}

// UserError naming the file: not HDF5, truncated, another schema, a missing table, column or order of rows.
template <class Tables>
Tables read_tables(const std::filesystem::path& path) {
  using base::UserError;
  const hdf5::QuietErrors quiet;
  const hdf5::Handle file = hdf5::open_for_reading(path);
  hdf5::check_texts(path);
  const htri_t has_version = H5Aexists(file.get(), "schema_version");
  if (has_version < 0) throw UserError("{}: its attributes cannot be read: {}", path.string(), hdf5::reason());
  if (has_version == 0)
    throw UserError("{}: attribute schema_version is missing; expected a {}", path.string(), Schema<Tables>::kKind);
  const auto version = hdf5::read_attribute_as<int64_t>(file.get(), path, "schema_version");
  if (version != Schema<Tables>::kVersion)
    throw UserError("{}: schema_version is {}; this program reads {}", path.string(), version,
                    Schema<Tables>::kVersion);
  Tables tables;
  for (const std::string& name : hdf5::attribute_names(file.get(), path))
    if (name != "schema_version") tables.facts.emplace(name, hdf5::read_attribute(file.get(), path, name));
  Schema<Tables>::each(tables, [&](auto& rows) { table::read(file, path, Schema<Tables>::kKind, rows); });
  return tables;
}

template <class Tables>
struct RecordFile<Tables>::Impl {
  static constexpr size_t kTables = Schema<Tables>::kTables;

  std::filesystem::path path;
  Tables tables;
  hdf5::Handle file;
  std::array<hdf5::Handle, kTables> handles;  // in the order of Schema::each
  std::array<size_t, kTables> written{};

  // Runs a write; where it fails, the file is given up without being closed.
  template <class Write>
  void writing(Write write) {
    const hdf5::QuietErrors quiet;
    try {
      write();
    } catch (...) {
      for (hdf5::Handle& handle : handles) handle.forget();
      file.forget();
      throw;
    }
  }

  void flush() {
    writing([&] {
      size_t i = 0;
      Schema<Tables>::each(tables, [&](const auto& rows) {
        table::append(handles[i], path, rows, written[i]);
        written[i++] = rows.size();
      });
      errno = 0;
      hdf5::require(H5Fflush(file.get(), H5F_SCOPE_GLOBAL) >= 0, path, "flush the file");
    });
  }
};

template <class Tables>
RecordFile<Tables>::RecordFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
template <class Tables>
RecordFile<Tables>::RecordFile(RecordFile&&) noexcept = default;

template <class Tables>
RecordFile<Tables>& RecordFile<Tables>::operator=(RecordFile&& other) noexcept {
  RecordFile old(std::move(*this));  // its rows are written when it goes
  impl_ = std::move(other.impl_);
  return *this;
}

template <class Tables>
RecordFile<Tables>::~RecordFile() {
  if (impl_ == nullptr) return;
  const hdf5::QuietErrors quiet;
  try {
    if (impl_->file) impl_->flush();
  } catch (const std::exception&) {
    // A caller who needs to know calls flush() or sync(); a destructor cannot say it.
  }
  impl_.reset();
}

template <class Tables>
RecordFile<Tables> RecordFile<Tables>::create(const std::filesystem::path& path, const Facts& facts) {
  Tables tables;
  tables.facts = facts;
  return recreate(path, std::move(tables));
}

template <class Tables>
RecordFile<Tables> RecordFile<Tables>::recreate(const std::filesystem::path& path, Tables tables) {
  tables.facts.erase("schema_version");  // there when the tables come from a file
  write_tables(path, tables);
  const hdf5::QuietErrors quiet;
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->file = hdf5::open_for_appending(path);
  size_t i = 0;
  Schema<Tables>::each(tables, [&](const auto& rows) {
    const char* name = table::TableOf<RowOf<decltype(rows)>>::kName;
    impl->handles[i] = hdf5::Handle(H5Dopen2(impl->file.get(), name, H5P_DEFAULT), H5Dclose);
    hdf5::require(static_cast<bool>(impl->handles[i]), path, fmt::format("open table {}", name));
    impl->written[i++] = rows.size();
  });
  impl->tables = std::move(tables);
  return RecordFile(std::move(impl));
}

template <class Tables>
template <class Row>
void RecordFile<Tables>::append(const Row& row) {
  Schema<Tables>::each(impl_->tables, [&](auto& rows) {
    if constexpr (std::is_same_v<RowOf<decltype(rows)>, Row>) table::add_row(rows, row);
  });
}

template <class Tables>
void RecordFile<Tables>::set_fact(const std::string& name, const Fact& value) {
  VARSCALE_CHECK(name != "schema_version", "schema_version is set by the file itself");
  impl_->writing([&] { hdf5::set_attribute(impl_->file.get(), impl_->path, name, value); });
  impl_->tables.facts.insert_or_assign(name, value);
}

template <class Tables>
void RecordFile<Tables>::flush() {
  impl_->flush();
}

template <class Tables>
void RecordFile<Tables>::sync() {
  impl_->flush();
  base::fsync_path(impl_->path);
}

template <class Tables>
const Tables& RecordFile<Tables>::tables() const noexcept {
  return impl_->tables;
}

}  // namespace varscale::records
