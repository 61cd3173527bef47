// The weights of a VAR in one safetensors file, which says of which shape it is and what it was made from.
//
//   write_weights("d16.safetensors", shape, {{"source", "var_d16.pth"}}, [&](const StateEntry& entry, float* out) {
//     ...
//   });
//   const WeightsFile weights("d16.safetensors");
//   weights.check_fits(shape);                                   // of the run that is to begin with them
//   std::span<const float> rows = weights.values("head.weight").subspan(begin, count);
//
// Format   Parameters under their public names, float32. Metadata: format, model (JSON, below), fingerprint (SHA-256
//          over names, shapes and values in the public order), and what the writer says of their origin.
// Memory   Mapped: values that are not looked at are not read. The writer holds one tensor.
// Errors   UserError naming the file: of another format, without or with other tensors than its model has, of another
//          shape than asked for (with the key), changed since it was written (verify).
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "base/safetensors.hpp"
#include "scaling/shape.hpp"
#include "scaling/state.hpp"

namespace varscale::archives {

inline constexpr const char* kWeightsFormat = "varscale.weights.1";

class WeightsFile {
 public:
  explicit WeightsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const noexcept { return file_.path(); }
  const scaling::VarShape& shape() const noexcept { return shape_; }  // its drop path is 0
  const std::string& fingerprint() const noexcept { return fingerprint_; }
  const std::map<std::string, std::string, std::less<>>& metadata() const noexcept { return file_.metadata(); }
  std::span<const float> values(std::string_view name) const;

  // UserError naming the first parameter that the shape has otherwise.
  void check_fits(const scaling::VarShape& shape) const;
  void verify() const;  // reads all of it

 private:
  base::SafetensorsFile file_;
  scaling::VarShape shape_;
  std::string fingerprint_;
};

// Fills `out` with the values of one parameter; called twice for each.
using ReadParameter = std::function<void(const scaling::StateEntry& entry, float* out)>;

// Returns the fingerprint.
std::string write_weights(const std::filesystem::path& target, const scaling::VarShape& shape,
                          const std::map<std::string, std::string>& origin, const ReadParameter& read);

}  // namespace varscale::archives
