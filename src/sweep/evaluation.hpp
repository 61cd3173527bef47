// The section `evaluate:` of a sweep file: how its finished runs are sampled and scored by `var_eval sweep`.
//
//   evaluate:
//     tokenizer: data/vae.safetensors
//     reference: data/val.h5              # a folder of images, or a file of var_eval features
//     features: data/inception.pth
//     images: 50000
//     cfg: 1.5
//     cfg_grid: [1, 1.5, 2, 3]            # the second column: the best of these, chosen on other seeds
//     grid_images: 5000
//
//   std::optional<EvaluationConfig> config = read_evaluation(root.child("evaluate"), faults);
//
// Nothing here enters the id of a run: the training is the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/config.hpp"
#include "sweep/identity.hpp"

namespace varscale::sweep {

struct EvaluationConfig {
  std::string tokenizer, reference;
  std::string features;  // "random": seeded weights
  std::string name;
  uint64_t feature_seed = 0;
  int64_t feature_batch = 16;
  int64_t images = 0;
  double cfg = 1.5;
  std::vector<double> cfg_grid;  // empty: one column
  int64_t grid_images = 0;       // 0: `images`
  uint64_t seed = 0, grid_seed = 1;
  int64_t top_k = 0;
  double top_p = 0;
  double temperature = 1;
  std::string precision = "fp32";
  int64_t group = 8;
  int64_t batch = 64;

  bool random_features() const { return features == "random"; }
  int64_t images_of_grid() const { return grid_images > 0 ? grid_images : images; }

  template <class Visitor>
  void visit(Visitor& v) {
    using base::OneOf;
    using base::Range;
    const auto no = base::Identity::kNo;
    v.field("tokenizer", tokenizer, "weights of the tokenizer that the runs' tokens were made with", no);
    v.field("reference", reference, "images as var_eval fd takes them: a folder, an .npz or an .h5 file", no);
    v.field("features", features, "the network's weight file, or random", no);
    v.field("name", name, "what the weight file is, as var_eval fd has it", no);
    v.field("feature_seed", feature_seed, "features: random: of its weights", no);
    v.field("feature_batch", feature_batch, "images that the network sees together", Range<int64_t>::at_least(1), no);
    v.field("images", images, "samples of each score, a multiple of the number of classes", Range<int64_t>::between(4, 100'000'000), no);
    v.field("cfg", cfg, "first column: end of the guidance ramp", Range<double>::at_least(0), no);
    v.field("cfg_grid", cfg_grid, "second column: the one of these with the least distance on grid_seed; empty: no such column", Range<double>::at_least(0), no);
    v.field("grid_images", grid_images, "samples of each value of the grid; 0: as many as images", Range<int64_t>::between(0, 100'000'000), no);
    v.field("seed", seed, "of the samples that are scored", no);
    v.field("grid_seed", grid_seed, "of those that the grid is judged by", no);
    v.field("top_k", top_k, "keep the k likeliest tokens; 0: all", Range<int64_t>::at_least(0), no);
    v.field("top_p", top_p, "keep the likeliest tokens of this total; 0: all", Range<double>::between(0, 1), no);
    v.field("temperature", temperature, "divides the logits", Range<double>::positive(), no);
    v.field("precision", precision, "of model and decoder", OneOf{"fp32", "bf16"}, no);
    v.field("group", group, "images computed together", Range<int64_t>::at_least(1), no);
    v.field("batch", batch, "images a rank draws between two writes", Range<int64_t>::at_least(1), no);
  }
};

// Why runs on these tokens cannot be scored so, in one sentence; empty: they can.
std::string misfit(const EvaluationConfig& config, const TokenFacts& tokens);

// Nothing where the section is absent. Faults: keys that are missing, out of range or without effect.
std::optional<EvaluationConfig> read_evaluation(const base::Node& node, base::Faults& faults);

}  // namespace varscale::sweep
