// The command line of var_sample.
//
//   Arguments a;
//   if (!parse_arguments(argc, argv, a)) return ExitCode::kDone;      // --help was printed
//
// Errors   UserError: options that are unknown, out of range, missing or without effect.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "generate/sampler.hpp"

namespace varscale::apps {

enum class Task { kSample, kInpaint, kOutpaint, kEdit, kSuper };
const char* name_of(Task task);  // of the others than kSample: the command's name

inline constexpr int64_t kClassesByDefault = 16;

struct Arguments {
  Task task = Task::kSample;
  std::filesystem::path from, tokenizer, tokens, out, npz, images;
  std::string precision = "fp32";
  generate::SamplingOptions sampling;
  int64_t batch = 64;
  bool json = false;
  // kSample
  std::string classes;
  int64_t per_class = 8;
  uint64_t order_seed = 0;
  bool npz_tokens = false;
  std::filesystem::path pyramid, classifier;
  std::optional<double> keep_share;
  // the others
  std::filesystem::path image, mask;
  std::string box, label;
  int64_t count = 4, first_scales = 0;

  // Where a launch keeps what it has drawn so far; and in it, a file that says that the folder of images was begun.
  std::filesystem::path part() const {
    return (!npz.empty() ? npz : !images.empty() ? images : !out.empty() ? out : pyramid).string() + ".part";
  }
  bool pyramid_alone() const { return !pyramid.empty() && npz.empty() && images.empty() && out.empty(); }
  std::filesystem::path images_begun() const { return part() / "images-begun"; }
};

// False where only help was asked for.
bool parse_arguments(int argc, char** argv, Arguments& a);

}  // namespace varscale::apps
