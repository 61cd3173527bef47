// Every setting of a tokenizer's training, as the user writes it in a YAML file.
//
// The defaults train a small tokenizer well, with mean errors alone; sweeps/quickstart_tokenizer.yaml is a ready
// file, sweeps/tokenizer256.yaml has the compound loss of the paper.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "base/config.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::tokenizer_training {

using base::Identity;
using base::OneOf;
using base::Range;

// A list of all settings shows also those that belong to a choice that is not the default.
template <class Visitor>
constexpr bool kShowsAll = std::is_same_v<Visitor, base::ConfigHelp>;

struct TrainConfig {
  int64_t steps = 1600;
  int64_t batch = 8;
  int64_t micro_batch = 0;
  int64_t images = 0;
  std::string crop = "centre";
  uint64_t seed = 0;
  std::string init = "zero_residual";
  std::string init_codes = "small";
  double average = 0;
  std::string precision = "fp32";
  std::string device = "cpu";
  int64_t max_skipped = 20;
  int64_t report_every = 100;
  double save_every_min = 5;

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("steps", steps, "optimiser steps", Range<int64_t>::at_least(1));
    v.field("batch", batch, "images a step, over all ranks", Range<int64_t>::at_least(1));
    v.field("micro_batch", micro_batch, "most images a rank computes at once; 0: all of its share",
            Range<int64_t>::at_least(0), Identity::kNo);
    v.field("images", images, "train on this many of the images, drawn by the seed; 0: all",
            Range<int64_t>::at_least(0));
    v.field("crop", crop, "what is taken of each image; random: another one in every pass",
            OneOf{"centre", "random"});
    v.field("seed", seed, "initial weights, order of the images, restarted codes, augmentation");
    v.field("init", init, "public: the public code's; zero_residual: blocks start as the identity",
            OneOf{"public", "zero_residual"});
    v.field("init_codes", init_codes, "before k-means: small: uniform within 1 / vocabulary; normal: of deviation 1",
            OneOf{"small", "normal"});
    v.field("average", average, "decay of the running mean of the weights that is saved; 0: the last weights",
            Range<double>::between(0, 0.99999));
    v.field("precision", precision, "of the convolutions; weights, moments, norms, codes and losses are fp32",
            OneOf{"fp32", "bf16"});
    v.field("device", device, "where it computes", OneOf{"cpu", "cuda"}, Identity::kNo);
    v.field("max_skipped", max_skipped, "updates in a row that may be skipped because they are not finite",
            Range<int64_t>::at_least(0), Identity::kNo);
    v.field("report_every", report_every, "steps between two rows a scale of the use of codes",
            Range<int64_t>::at_least(1), Identity::kNo);
    v.field("save_every_min", save_every_min, "minutes between saved states", Range<double>::positive(), Identity::kNo);
  }
};

// Terms of the tokenizer's loss; each is a weight on a mean over pixels, features or images.
struct LossConfig {
  double l2 = 1, l1 = 0.5, vq = 1, lpips = 0;
  std::string vgg_weights, lpips_heads;

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("l2", l2, "weight of the mean squared error of the image", Range<double>::at_least(0));
    v.field("l1", l1, "weight of the mean absolute error of the image", Range<double>::at_least(0));
    v.field("vq", vq, "weight of the quantiser's loss", Range<double>::at_least(0));
    v.field("lpips", lpips, "weight of the perceptual distance; 0: switched off, and rFID compares with nobody's",
            Range<double>::at_least(0));
    if (lpips == 0 && !kShowsAll<Visitor>) return;
    v.field("vgg_weights", vgg_weights, "lpips: file of VGG16's weights under torchvision's names, .pth or .safetensors; made: random ones",
            Identity::kNo);
    v.field("lpips_heads", lpips_heads, "lpips: file of the five heads, of either kind; empty: they lie in vgg_weights", Identity::kNo);
  }
};

struct AdversarialConfig {
  std::string discriminator = "none";
  double weight = 0.4;
  bool adaptive = true;
  double adaptive_most = 1e4;
  int64_t start_step = 400;
  int64_t warmup_steps = 40;
  std::string loss = "hinge";
  double lecam = 0;
  double r1 = 0;
  bool augment_colour = true;
  double augment_translation = 0.125, augment_cutout = 0.2;
  double lr = 3e-4, beta1 = 0.5, beta2 = 0.9, weight_decay = 0, clip = 1;
  int64_t channels = 64, layers = 3, groups = 32;  // patch_gan
  std::string dino_weights;                        // dino
  double dino_crop = 0;

  bool is_on() const { return discriminator != "none"; }

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("discriminator", discriminator,
            "patch_gan: judges patches, needs no weights; dino: judges features of a frozen DINO ViT-S/16",
            OneOf{"none", "patch_gan", "dino"});
    if (!is_on() && !kShowsAll<Visitor>) return;
    v.field("weight", weight, "weight of the adversarial term", Range<double>::at_least(0));
    v.field("adaptive", adaptive,
            "times the ratio of the gradients at the decoder's last layer, reconstruction over adversarial, in the "
            "step before");
    if (adaptive || kShowsAll<Visitor>)
      v.field("adaptive_most", adaptive_most, "adaptive: bound on that ratio", Range<double>::positive());
    v.field("start_step", start_step, "first step with a discriminator", Range<int64_t>::at_least(0));
    v.field("warmup_steps", warmup_steps, "steps over which the term's weight rises from there",
            Range<int64_t>::at_least(0));
    v.field("loss", loss, "of generator and discriminator", OneOf{"hinge", "non_saturating"});
    v.field("lecam", lecam, "weight of LeCAM regularisation of the discriminator", Range<double>::at_least(0));
    v.field("r1", r1, "gamma of the gradient penalty on real images, gamma / 2 |grad|^2", Range<double>::at_least(0));
    v.field("augment_colour", augment_colour, "DiffAugment: brightness, saturation, contrast");
    v.field("augment_translation", augment_translation, "DiffAugment: share of the side",
            Range<double>::between(0, 0.5));
    v.field("augment_cutout", augment_cutout, "DiffAugment: share of the side", Range<double>::between(0, 0.9));
    v.field("lr", lr, "of the discriminator: peak rate of its own AdamW, with the tokenizer's schedule",
            Range<double>::positive());
    v.field("beta1", beta1, "of the discriminator", Range<double>::between(0, 0.9999999));
    v.field("beta2", beta2, "of the discriminator", Range<double>::between(0, 0.9999999));
    v.field("weight_decay", weight_decay, "of the discriminator, decoupled", Range<double>::at_least(0));
    v.field("clip", clip, "bound on the discriminator's gradient norm; 0: none", Range<double>::at_least(0));
    if (discriminator == "patch_gan" || kShowsAll<Visitor>) {
      v.field("channels", channels, "patch_gan: channels of the first convolution", Range<int64_t>::at_least(1));
      v.field("layers", layers, "patch_gan: convolutions of stride 2", Range<int64_t>::at_least(1));
      v.field("groups", groups, "patch_gan: groups of the norms; must divide 2 channels", Range<int64_t>::at_least(1));
    }
    if (discriminator == "dino" || kShowsAll<Visitor>) {
      v.field("dino_weights", dino_weights, "dino: file of the transformer's weights, .pth or .safetensors; made: random ones",
              Identity::kNo);
      v.field("dino_crop", dino_crop, "dino: share of the images shown as a crop, not resized",
              Range<double>::between(0, 1));
    }
  }
};

struct OptimizerConfig {
  double lr = 1.5e-3;
  double beta1 = 0.9, beta2 = 0.99, eps = 1e-8;
  double weight_decay = 0;
  double clip = 1;
  std::string schedule = "wsd";
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
    v.field("schedule", schedule, "after the warm-up; wsd: constant, then linear to the end", OneOf{"wsd", "cosine"});
    v.field("warmup_steps", warmup_steps, "steps of linear warm-up", Range<int64_t>::at_least(0));
    if (schedule == "wsd" || kShowsAll<Visitor>)
      v.field("hold", hold, "wsd: share of the steps before the linear decay", Range<double>::between(0, 1));
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
  double scale_dropout = 0;
  int64_t scale_dropout_from = 3;
  double entropy = 0, entropy_temperature = 1;

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
    if (kmeans_images > 0 || kShowsAll<Visitor>)
      v.field("kmeans_iterations", kmeans_iterations, "of k-means", Range<int64_t>::at_least(0));
    if (update == "ema" || kShowsAll<Visitor>) {  // codes that follow a gradient have none of these
      v.field("decay", decay, "ema: of the running means", Range<double>::between(0, 0.99999));
      v.field("restart_every", restart_every,
              "ema: steps between restarts of unused codes; 0: never",
              Range<int64_t>::at_least(0));
      if (restart_every > 0 || kShowsAll<Visitor>) {
        v.field("restart_below", restart_below,
                "ema: restart codes chosen less than this part of an equal share",
                Range<double>::between(0, 1));
        v.field("restart_until", restart_until, "ema: share of the steps after which no code is restarted",
                Range<double>::between(0, 1));
      }
    }
    v.field("scale_dropout", scale_dropout,
            "share of the images that are trained with their first scales alone, as many as are drawn",
            Range<double>::between(0, 1));
    if (scale_dropout > 0 || kShowsAll<Visitor>)
      v.field("scale_dropout_from", scale_dropout_from, "scale_dropout: scales that an image keeps at least",
              Range<int64_t>::at_least(1));
    v.field("entropy", entropy, "weight of minus the information that a place has on its code, in nats: even use, decided choices",
            Range<double>::at_least(0));
    if (entropy > 0 || kShowsAll<Visitor>)
      v.field("entropy_temperature", entropy_temperature, "entropy: squared distance by which a choice falls to 1 / e",
              Range<double>::positive());
  }
};

// How the ranks hold the VQVAE; the networks of the loss are on every rank.
struct ParallelConfig {
  std::string mode = "replicated";
  int64_t shards = 0;
  bool recompute = false, overlap = true;
  double deadline_s = 300, first_deadline_s = 1800;

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("mode", mode, "replicated: the whole model on each rank; zero2, zero3: a share of it; hybrid: zero3 in groups",
            OneOf{"replicated", "zero2", "zero3", "hybrid"}, Identity::kNo);
    if (mode == "hybrid" || kShowsAll<Visitor>)
      v.field("shards", shards, "hybrid: ranks that share one model", Range<int64_t>::at_least(0), Identity::kNo);
    v.field("recompute", recompute, "levels keep their input alone and run again in backward", Identity::kNo);
    v.field("overlap", overlap, "reduce gradients while backward runs, and gather weights ahead", Identity::kNo);
    v.field("deadline_s", deadline_s, "seconds a rank waits for the others in a collective before the launch ends",
            Range<double>::positive(), Identity::kNo);
    v.field("first_deadline_s", first_deadline_s, "the same until the first step has passed, and around saved states",
            Range<double>::positive(), Identity::kNo);
  }
};

struct TokenizerConfig {
  tokenizer::VqvaeConfig model;
  TrainConfig train;
  LossConfig loss;
  AdversarialConfig adversarial;
  OptimizerConfig optimizer;
  CodebookConfig codebook;
  ParallelConfig parallel;

  template <class Visitor>
  void visit(Visitor& v) {
    v.section("model", model, "the multi-scale VQVAE");
    v.section("train", train, "budget, batch, seed");
    v.section("loss", loss, "weights of the terms");
    v.section("adversarial", adversarial, "the discriminator");
    v.section("optimizer", optimizer, "AdamW and its schedule");
    v.section("codebook", codebook, "how the codes are kept in use");
    v.section("parallel", parallel, "how ranks share the work");
  }

  void check() const;  // UserError: settings that do not fit together
};

}  // namespace varscale::tokenizer_training
