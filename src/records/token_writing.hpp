// What the writers of tokens.h5 share: its creation, its rows past HDF5, its end. Private to records.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/file.hpp"
#include "records/token_file.hpp"
#include "records/token_layout.hpp"

namespace varscale::records::token_writing {

using Path = std::filesystem::path;

// Where the raw data of each array begins in the file.
struct Places {
  int64_t tokens = 0, labels = 0, split = 0, source_ids = 0, checksums = 0;
};

// Makes the file with all arrays allocated and closes it. `path` is what sentences call it. UserError: sizes
// out of range.
Places create(const Path& file_path, const Path& path, const TokenFileInfo& info, const QuantizerWeights& quantizer);

// pwrite of everything. SystemError with the path.
void write_at(int descriptor, const Path& file_path, const void* data, size_t bytes, int64_t offset);

struct RowsToWrite {
  int64_t first = 0, count = 0;
  const uint16_t* tokens = nullptr;  // [count, L]
  const int32_t* labels = nullptr;
  const int64_t* source_ids = nullptr;
};
void write_rows(int descriptor, const Path& file_path, const Places& places, const TokenFileInfo& info,
                const RowsToWrite& rows);

// Of a file with every row written: puts checksums and fingerprint in.
void finish(const Path& file_path, const Path& path, const TokenFileInfo& info, const QuantizerWeights& quantizer,
            const Places& places);

token_layout::Columns columns_of(const base::MappedFile& mapped, const Places& places);

}  // namespace varscale::records::token_writing
