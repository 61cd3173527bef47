// Class-conditional "dead leaves" images: overlapping shapes with power-law radii, drawn back to front.
//
//   std::vector<uint8_t> rgb = draw_leaves({/*seed=*/0, SynthSplit::kTrain, /*index=*/17, /*side=*/32});
//   write_synth_tree("images", {14000, 500, 32, 0});       // images/train/00_embers/000001.png ...
//
// Dead leaves share the statistics of natural images that matter for a scaling law: occlusion, edges at
// every size, a power-law spectrum. The ten classes differ in palette, shape, radius law and texture.
// Image `index` has class index mod 10 and is a pure function of (seed, split, index, side); train and
// validation draw from different random streams.
//
// Source   Lee, Mumford and Huang 2001, "Occlusion models for natural images", section 2.
// Errors   UserError: counts or side out of range, an output folder that exists or cannot be written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace varscale::data {

inline constexpr int64_t kSynthClasses = 10;
const std::vector<std::string>& synth_class_names();  // "00_embers", ...: in label order

enum class SynthSplit { kTrain, kValidation };

struct SynthImage {
  uint64_t seed = 0;
  SynthSplit split = SynthSplit::kTrain;
  int64_t index = 0;  // class: index mod 10
  int64_t side = 32;  // pixels; every length scales with side / 32
};

std::vector<uint8_t> draw_leaves(const SynthImage& image);  // [side, side, 3]

struct SynthTree {
  int64_t train = 14000, validation = 500;  // images, all classes together
  int64_t side = 32;                        // 8 to 1024
  uint64_t seed = 0;
};

// Writes folder/train/<class>/000001.png and folder/val/<class>/...: complete or absent.
void write_synth_tree(const std::filesystem::path& folder, const SynthTree& tree, int64_t threads);

}  // namespace varscale::data
