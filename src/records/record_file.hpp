// An HDF5 file of facts and tables that grows while something runs.
//
//   RunFile run = RunFile::create(path, facts);            // RecordFile<RunTables>
//   run.append(StepRow{...}); run.flush();
//   RunFile again = RunFile::recreate(path, tables);       // goes on where `tables` end
//
// Layout   One 1-D compound table a row type, named and described where the row types are; every fact is a root
//          attribute, beside schema_version.
// Order    Steps increase in a table of one row a step and never fall in the others. flush() makes all rows so
//          far readable after a kill in practice; sync() also reaches the disk. Zero rows that a kill may leave
//          behind the last flushed row are not read.
// Memory   All rows are kept in memory too: a run has some 1e6.
// Locks    While one is open, another process cannot read the file; this one can.
// Errors   SystemError: I/O. Rows appended out of order break an invariant.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <variant>

namespace varscale::records {

using Fact = std::variant<int64_t, double, std::string>;
using Facts = std::map<std::string, Fact>;

// `Tables` has the member `facts` and one vector a row type.
template <class Tables>
class RecordFile {
 public:
  // A new file without rows; one that is there already is replaced.
  static RecordFile create(const std::filesystem::path& path, const Facts& facts);
  // Replaces the file by `tables` (aside, fsync, rename) and opens it for appending: for resuming.
  static RecordFile recreate(const std::filesystem::path& path, Tables tables);
  RecordFile(RecordFile&&) noexcept;
  RecordFile& operator=(RecordFile&&) noexcept;
  ~RecordFile();

  template <class Row>
  void append(const Row& row);
  void set_fact(const std::string& name, const Fact& value);
  void flush();  // writes buffered rows, H5Fflush
  void sync();   // flush and fsync
  const Tables& tables() const noexcept;

 private:
  struct Impl;
  explicit RecordFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace varscale::records
