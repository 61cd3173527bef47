// What the writer and the reader of tokens.h5 share. Private to records.
#pragma once

#include <cstdint>
#include <string>

#include "base/file.hpp"
#include "records/token_file.hpp"

namespace varscale::records::token_layout {

inline constexpr int64_t kSchemaVersion = 1;
inline constexpr const char* kFormat = "varscale tokens";
inline constexpr size_t kFingerprintDigits = 64;
inline constexpr int64_t kChecksumRows = 1024;  // rows under one checksum
// Bounds far above any use that keep all products of sizes inside int64.
inline constexpr int64_t kLargestVocabulary = 65536;  // tokens are 16 bits wide
inline constexpr int64_t kLargestSide = 1024;
inline constexpr int64_t kLargestCount = int64_t{1} << 32;

// UserError with `where` in front, unless counts, scales and sizes are sound and fit together.
void check_info(const std::string& where, const TokenFileInfo& info);
void check_quantizer_sizes(const std::string& where, const TokenFileInfo& info,
                           const QuantizerWeights& quantizer);

// The identity part of the info in lines of "name value", the quantiser's sizes among them.
std::string identity(const TokenFileInfo& info, const QuantizerWeights& quantizer);

// The SHA-256 that fingerprint() returns, in file order: a text of the identity part of the info,
// the quantiser's numbers, /tokens, /labels, /split and /source_id. Class names and the tokenizer's
// path are for humans and stay out.
std::string fingerprint(const TokenFileInfo& info, const QuantizerWeights& quantizer,
                        const void* tokens, const void* labels, const void* split,
                        const void* source_ids);

// The arrays of a file in memory; they need not be aligned.
struct Columns {
  const std::byte *tokens, *labels, *split, *source_ids;
};

int64_t checksum_blocks(const TokenFileInfo& info);
// The first eight bytes of the SHA-256 of rows [first, first + count): tokens, labels, split, source ids.
uint64_t rows_checksum(const TokenFileInfo& info, const Columns& columns, int64_t first, int64_t count);
uint64_t block_checksum(const TokenFileInfo& info, const Columns& columns, int64_t block);

}  // namespace varscale::records::token_layout
