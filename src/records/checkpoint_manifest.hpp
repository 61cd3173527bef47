// manifest.json of a checkpoint: which files it has, and which rows of which tensor lie in each.
//
//   const nlohmann::json manifest = parse_checkpoint_manifest(base::read_file(path), path);
//
// Layout   {"schema": 2, "run_id", "config_hash", "step", "segment",
//           "files": {"run.h5": {"bytes", "sha256"}, "rank-00000.safetensors": ...},
//           "tensors": [{"name", "shape", "axis", "rows": [begin, end], "file"}, ...]}
//          Over all entries of a tensor, which agree in shape and axis, every row is there once. A tensor
//          without axes has axis 0 and rows [0, 1].
// Errors   UserError naming the file and what is wrong: not JSON, another schema, a key that is missing or of
//          another type, sizes that do not fit one another or the files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace varscale::records {

inline constexpr int64_t kCheckpointSchema = 2;
inline constexpr const char* kCheckpointRows = "run.h5";

nlohmann::json parse_checkpoint_manifest(std::string_view text, const std::filesystem::path& path);

}  // namespace varscale::records
