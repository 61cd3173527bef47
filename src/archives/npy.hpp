// Heads of NumPy's .npy files, which are also the entries of an .npz archive: dtype and shape in front of the values.
//
//   out.begin("arr_0.npy", {.align = 64});
//   const std::string head = write_npy_head({.dtype = "|u1", .shape = {count, height, width, 3}});
//   out.write(head.data(), head.size());                       // then the values, row-major
//
//   const ZipFile zip("stats.npz");
//   const NpyHead head = read_npy_head(zip, zip.at("mu.npy"));
//   zip.read(zip.at("mu.npy"), head.bytes, values, head.value_bytes());
//
// Format   Versions 1.0, 2.0 and 3.0 are read. What is written is what numpy writes for the same array, to the byte:
//          version 1.0, padded so that the values begin at a multiple of 64.
// Errors   UserError naming the file and the entry: no such head, a cut one, one of another version, of a structured or
//          an object dtype, with a shape that does not fit into 63 bits or into the entry.
// Source   numpy.lib.format, "Format Version 1.0".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "archives/zip_file.hpp"

namespace varscale::archives {

struct NpyHead {
  std::string dtype;  // byte order, kind and bytes of a value: "|u1", "<f4", "<f8", "<i8"
  std::vector<int64_t> shape;
  bool fortran_order = false;  // the first index runs fastest
  uint64_t bytes = 0;          // of the head: where the values begin; not looked at by write_npy_head

  int64_t values() const;
  uint64_t value_bytes() const;  // of all values
};

std::string write_npy_head(const NpyHead& head);

// `beginning`: at least the whole head. `where` stands in front of sentences.
NpyHead parse_npy_head(std::string_view beginning, const std::string& where);
// Of an entry, which must hold exactly the values that its head announces.
NpyHead read_npy_head(const ZipFile& zip, const ZipEntry& entry);

}  // namespace varscale::archives
