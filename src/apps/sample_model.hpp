// What var_sample draws from: the newest checkpoint of a run, or a weights file.
//
// Errors   UserError: neither, a run without a checkpoint or trained on other tokens, a tokenizer that does not fit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/var/model.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::apps {

// Image j of class c, whatever else is drawn. From class to class the index grows by one more than a class has images,
// which is odd: a few images of each of many classes fall into different slots of a group.
inline constexpr int64_t kImagesPerClass = 1'000'000;
constexpr int64_t image_index(int64_t c, int64_t j) { return c * (kImagesPerClass + 1) + j; }

struct SampleModel {
  models::Var model;
  std::string words;                     // "run d5-s0-1f3a9c (depth 5) after 10 of 20 steps"
  std::vector<std::string> class_names;  // may be empty
  nlohmann::ordered_json facts;          // for captions; names the weights
};

// `from`: the folder of a run, whose token file may have moved to `tokens`, or a file of `var_data import` or `export`.
SampleModel load_sample_model(const std::filesystem::path& from, const std::filesystem::path& tokens,
                              const std::filesystem::path& tokenizer_path, const tokenizer::Vqvae& tokenizer);

}  // namespace varscale::apps
