// What a tokenizer's settings say to each of the libraries that its trainer puts together.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "losses/lpips.hpp"
#include "tokenizer/image_source.hpp"
#include "tokenizer/layers.hpp"
#include "tokenizer_training/adversary.hpp"
#include "tokenizer_training/config.hpp"

namespace varscale::tokenizer_training {

at::Device device_of(const TokenizerConfig& config);  // of this rank
at::ScalarType compute_dtype(const TokenizerConfig& config);
tokenizer::LeafOptions leaf_options(const TokenizerConfig& config);  // without storage

// Where loss.lpips is above 0. UserError: no file is named, or it is not that network's.
std::optional<losses::Lpips> read_lpips(const TokenizerConfig& config);

// Settings, images and networks as one JSON text.
std::string record_of(const TokenizerConfig& config, const tokenizer::ImageSource& images,
                      const std::optional<losses::Lpips>& lpips, const std::optional<Adversary>& adversary);

}  // namespace varscale::tokenizer_training
