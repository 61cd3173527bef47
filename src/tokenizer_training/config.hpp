// Every setting of a tokenizer's training, as the user writes it in a YAML file.
//
// The defaults train a small tokenizer well; sweeps/quickstart_tokenizer.yaml is a ready file.
#pragma once

#include <cstdint>
#include <string>

#include "base/config.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::tokenizer {

using base::Identity;
using base::OneOf;
using base::Range;

struct TokenizerTrainConfig {
  int64_t steps = 1600;
  int64_t batch = 8;
  int64_t images = 0;
  uint64_t seed = 0;
  std::string init = "zero_residual";
  double average = 0;
  double save_every_min = 5;

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("steps", steps, "optimiser steps", Range<int64_t>::at_least(1));
    v.field("batch", batch, "images a step", Range<int64_t>::at_least(1));
    v.field("images", images, "train on this many images of the folder, drawn by the seed; 0: all",
            Range<int64_t>::at_least(0));
    v.field("seed", seed, "initial weights, order of the images, restarted codes");
    v.field("init", init, "public: the public code's; zero_residual: blocks start as the identity",
            OneOf{"public", "zero_residual"});
    v.field("average", average,
            "decay of the running mean of the weights that is saved; 0: the last weights",
            Range<double>::between(0, 0.99999));
    v.field("save_every_min", save_every_min, "minutes between saved states",
            Range<double>::positive(), Identity::kNo);
  }
};

// Terms of the loss; each is a weight on a mean over pixels or features. A term that compares in the
// space of a network (perceptual, adversarial) takes its place here and in reconstruction_loss().
struct LossConfig {
  double l2 = 1, l1 = 0.5, vq = 1;

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("l2", l2, "weight of the mean squared error of the image", Range<double>::at_least(0));
    v.field("l1", l1, "weight of the mean absolute error of the image", Range<double>::at_least(0));
    v.field("vq", vq, "weight of the quantiser's loss", Range<double>::at_least(0));
  }
};

struct TokenizerOptimizerConfig {
  double lr = 1.5e-3;
  double beta1 = 0.9, beta2 = 0.99, eps = 1e-8;
  double weight_decay = 0;
  double clip = 1;
  int64_t warmup_steps = 20;
  double hold = 0.5;
  double end = 0.05;

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("lr", lr, "peak learning rate of AdamW", Range<double>::positive());
    v.field("beta1", beta1, "AdamW", Range<double>::between(0, 0.9999999));
    v.field("beta2", beta2, "AdamW", Range<double>::between(0, 0.9999999));
    v.field("eps", eps, "AdamW", Range<double>::positive());
    v.field("weight_decay", weight_decay, "decoupled; on convolutions and codes only",
            Range<double>::at_least(0));
    v.field("clip", clip, "bound on the gradient norm; 0: none", Range<double>::at_least(0));
    v.field("warmup_steps", warmup_steps, "steps of linear warm-up", Range<int64_t>::at_least(0));
    v.field("hold", hold, "share of the steps before the linear decay",
            Range<double>::between(0, 1));
    v.field("end", end, "last learning rate over the peak", Range<double>::between(0, 1));
  }
};

struct CodebookConfig {
  std::string update = "ema";
  double decay = 0.98;
  int64_t start_step = 30;
  int64_t kmeans_images = 256;
  int64_t kmeans_iterations = 8;
  int64_t restart_every = 20;
  double restart_below = 0.05;
  double restart_until = 0.8;

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("update", update,
            "ema: codes are running means of what they stand for; gradient: the public way",
            OneOf{"ema", "gradient"});
    v.field("start_step", start_step, "steps before this one train without the quantiser",
            Range<int64_t>::at_least(0));
    v.field("kmeans_images", kmeans_images,
            "images whose residuals start the codes by k-means; 0: keep the initial codes",
            Range<int64_t>::at_least(0));
    v.field("kmeans_iterations", kmeans_iterations, "of k-means", Range<int64_t>::at_least(0));
    if (update != "ema") return;  // codes that follow a gradient have none of what comes now
    v.field("decay", decay, "ema: of the running means", Range<double>::between(0, 0.99999));
    v.field("restart_every", restart_every,
            "ema: steps between restarts of unused codes; 0: never",
            Range<int64_t>::at_least(0));
    v.field("restart_below", restart_below,
            "restart codes chosen less than this part of an equal share",
            Range<double>::between(0, 1));
    v.field("restart_until", restart_until, "share of the steps after which no code is restarted",
            Range<double>::between(0, 1));
  }
};

struct TokenizerConfig {
  VqvaeConfig model;
  TokenizerTrainConfig train;
  LossConfig loss;
  TokenizerOptimizerConfig optimizer;
  CodebookConfig codebook;

  template <class Visitor>
  void visit(Visitor& v) {
    v.section("model", model, "the multi-scale VQVAE");
    v.section("train", train, "budget, batch, seed");
    v.section("loss", loss, "weights of the terms");
    v.section("optimizer", optimizer, "AdamW and its schedule");
    v.section("codebook", codebook, "how the codes are kept in use");
  }
};

}  // namespace varscale::tokenizer
