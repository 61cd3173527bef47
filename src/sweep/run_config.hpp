// Every setting of one training run, as the user writes it under `defaults:` and `runs:` of a sweep file.
//
// Fields marked Identity::kNo change speed, places or logging only, and never enter a run's id.
// Sizes that the token file fixes (vocabulary, scales, classes) are not settings.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/config.hpp"

namespace varscale::sweep {

using base::Identity;
using base::OneOf;
using base::Range;

struct ModelConfig {
  int64_t depth = 16;
  int64_t width = 0;             // 0: 64 x depth
  int64_t heads = 0;             // 0: depth
  int64_t mlp_ratio = 4;
  double drop_path = -1;         // -1: 0.1 x depth / 24
  double label_drop = 0.1;
  bool attn_l2_norm = true;
  bool shared_adaln = false;
  double adaln_gamma_init = 1e-5;  // the public code's alng
  double init_std = -1;          // -1: sqrt(1 / (3 width))
  std::string init_from;         // a file of weights to begin with
  std::string init_fingerprint;  // of them; empty: the file's

  int64_t width_or_rule() const { return width ? width : 64 * depth; }
  int64_t heads_or_rule() const { return heads ? heads : depth; }
  double drop_path_or_rule() const { return drop_path < 0 ? 0.1 * static_cast<double>(depth) / 24 : drop_path; }

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("depth", depth, "number of blocks; everything else follows from it", Range<int64_t>::between(1, 1000));
    v.field("width", width, "channels; 0: 64 x depth", Range<int64_t>::at_least(0));
    v.field("heads", heads, "attention heads; 0: depth", Range<int64_t>::at_least(0));
    v.field("mlp_ratio", mlp_ratio, "hidden width of the feed-forward part over the width", Range<int64_t>::at_least(1));
    v.field("drop_path", drop_path, "drop-path rate of the last block; -1: 0.1 x depth / 24", Range<double>::between(-1, 0.99));
    v.field("label_drop", label_drop, "share of labels replaced by the null class while training", Range<double>::between(0, 1));
    v.field("attn_l2_norm", attn_l2_norm, "unit-norm q and k with a learned scale per head");
    v.field("shared_adaln", shared_adaln, "one AdaLN projection for all blocks");
    v.field("adaln_gamma_init", adaln_gamma_init, "factor on the initial AdaLN gates", Range<double>::at_least(0));
    v.field("init_std", init_std, "deviation of the initial weights; -1: sqrt(1 / (3 width))");
    v.field("init_from", init_from, "weights to begin with instead: a file of var_data import or export", Identity::kNo);  // its fingerprint counts
    v.field("init_fingerprint", init_fingerprint, "fingerprint of init_from; empty: whatever the file has");
  }
};

struct OptimizerConfig {
  double lr = 1e-4;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.05;
  double weight_decay_end = -1;  // -1: constant
  double clip = 2.0;             // 0: no clipping

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("lr", lr, "peak learning rate at the run's batch", Range<double>::positive());
    v.field("beta1", beta1, "AdamW", Range<double>::between(0, 0.9999999));
    v.field("beta2", beta2, "AdamW", Range<double>::between(0, 0.9999999));
    v.field("eps", eps, "AdamW", Range<double>::positive());
    v.field("weight_decay", weight_decay, "decoupled; on matrices and class embedding only", Range<double>::at_least(0));
    v.field("weight_decay_end", weight_decay_end, "reached along a cosine; -1: constant", Range<double>::at_least(-1));
    v.field("clip", clip, "bound on the gradient norm; 0: none", Range<double>::at_least(0));
  }
};

struct ScheduleConfig {
  std::string kind = "wsd";
  double warmup = 0.02;       // share of the steps
  int64_t warmup_images = 0;  // the warm-up where it is not 0: the same steps at any budget
  double warmup_start = 0.005;
  double hold = 0.05;         // public: share of the steps after warm-up; wsd: share of all steps up to the decay
  double end = 0.1;           // learning rate at the end over the peak

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("kind", kind, "shape of the learning rate after the warm-up", OneOf{"public", "cosine", "constant", "wsd"});
    v.field("warmup", warmup, "share of the steps spent warming up", Range<double>::between(0, 1));
    v.field("warmup_images", warmup_images, "warm-up in images, whatever the budget; 0: by share", Range<int64_t>::at_least(0));
    v.field("warmup_start", warmup_start, "first learning rate over the peak", Range<double>::between(0, 1));
    v.field("hold", hold, "public: flat share of the rest; wsd: share of all steps before the linear decay", Range<double>::between(0, 1));
    v.field("end", end, "last learning rate over the peak", Range<double>::between(0, 1));
  }
};

struct TrainConfig {
  int64_t images = 0;         // the budget, where it is not 0; else the first of tokens, flops, epochs that is not
  double tokens = 0;
  double flops = 0;
  double epochs = 1;
  int64_t batch = 64;         // global, in images
  uint64_t seed = 0;
  uint64_t data_seed = 0;     // order of the images: shared by all runs of a sweep unless stated
  std::string precision = "fp32";
  int64_t micro_batch = 0;    // per rank and backward pass; 0: all of the rank's share
  double save_every_min = 10;
  int64_t keep = 2;
  std::string keep_at;        // "4e6 16e6": budgets whose checkpoints stay for ever
  int64_t max_skipped = 10;
  int64_t threads = 0;        // 0: OMP_NUM_THREADS, or the cores
  std::string device = "cpu";
  bool cuda_graph = false;

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("images", images, "budget in images; 0: another budget, or epochs", Range<int64_t>::at_least(0));
    v.field("tokens", tokens, "budget in tokens", Range<double>::at_least(0));
    v.field("flops", flops, "budget in training FLOPs, by the exact formula", Range<double>::at_least(0));
    v.field("epochs", epochs, "budget in passes over the training images", Range<double>::positive());
    v.field("batch", batch, "images a step over all ranks", Range<int64_t>::between(1, 1'000'000'000));
    v.field("seed", seed, "initial weights, label drop, drop path");
    v.field("data_seed", data_seed, "order of the images");
    v.field("precision", precision, "dtype of the matrix products", OneOf{"fp32", "bf16"});
    v.field("micro_batch", micro_batch, "images a backward pass on one rank; 0: the rank's whole share", Range<int64_t>::at_least(0), Identity::kNo);
    v.field("save_every_min", save_every_min, "most minutes between checkpoints", Range<double>::positive(), Identity::kNo);
    v.field("keep", keep, "newest checkpoints kept", Range<int64_t>::at_least(1), Identity::kNo);
    v.field("keep_at", keep_at, "images seen, as in '4e6 16e6', whose checkpoints are kept for ever", Identity::kNo);
    v.field("max_skipped", max_skipped, "updates in a row that are skipped because loss or gradient is not finite, before the run fails", Range<int64_t>::at_least(0), Identity::kNo);
    v.field("threads", threads, "threads of one rank; 0: OMP_NUM_THREADS, or the cores", Range<int64_t>::at_least(0), Identity::kNo);
    v.field("device", device, "where the model is", OneOf{"cpu", "cuda"}, Identity::kNo);
    v.field("cuda_graph", cuda_graph, "launch each update as one recorded CUDA graph, for models so small that launching their kernels takes longer than running them: one rank, one micro-batch, constant weight decay", Identity::kNo);
  }
};

// Where the tokens of the training images come from. Those of validation are always the token file's.
struct DataConfig {
  std::string tokens = "cached";
  std::string images, tokenizer;  // paths, of online alone

  bool online() const { return tokens == "online"; }

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("tokens", tokens, "cached: the crops that the token file holds; online: each step decodes, crops and encodes its images, other crops in every pass", OneOf{"cached", "online"});
    v.field("images", images, "online: the training images that the token file was made from: folders, tars or a list", Identity::kNo);
    v.field("tokenizer", tokenizer, "online: weights of the tokenizer that the token file was made with", Identity::kNo);
  }
};

// How the ranks hold the model: changes speed and memory, and the last bits of sums.
struct ParallelConfig {
  std::string mode = "auto";
  int64_t shards = 0;         // hybrid: ranks of one group
  std::string recompute = "none";
  bool overlap = true;
  double memory_gib = 0;      // of one rank; 0: the device's, or the rank's share of the machine's
  double deadline_s = 300;
  double first_deadline_s = 1800;

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("mode", mode, "replicated: the whole model on each rank; zero2, zero3: a share of it; hybrid: zero3 in groups, copies across; auto: the first that fits the memory", OneOf{"auto", "replicated", "zero2", "zero3", "hybrid"}, Identity::kNo);
    v.field("shards", shards, "hybrid: ranks that share one model", Range<int64_t>::at_least(0), Identity::kNo);
    v.field("recompute", recompute, "what backward computes again instead of keeping it: none; selective: the inputs of linear layers (modulated norms, GELU), a third less is kept; full: whole blocks, which keep their input alone", OneOf{"none", "selective", "full"}, Identity::kNo);
    v.field("overlap", overlap, "reduce gradients while backward runs, and gather weights ahead", Identity::kNo);
    v.field("memory_gib", memory_gib, "memory of one rank that auto reckons with; 0: the device's, or an equal share of the machine's", Range<double>::at_least(0), Identity::kNo);
    v.field("deadline_s", deadline_s, "seconds a rank waits for the others in a collective before the launch ends", Range<double>::positive(), Identity::kNo);
    v.field("first_deadline_s", first_deadline_s, "the same until the first step has passed, and around checkpoints", Range<double>::positive(), Identity::kNo);
  }
};

struct EvalConfig {
  int64_t points = 40;        // log-spaced steps
  double max_cost = 0.02;     // share of the run's compute
  std::string label_drop = "none";
  int64_t batch = 50;

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("points", points, "evaluations, log-spaced over the steps", Range<int64_t>::at_least(1), Identity::kNo);
    v.field("max_cost", max_cost, "share of the run's compute; beyond it intermediate points use a fixed subset", Range<double>::positive(), Identity::kNo);
    v.field("label_drop", label_drop, "none, or the public code's 10 % while validating", OneOf{"none", "public"});
    v.field("batch", batch, "validation images a pass on one rank", Range<int64_t>::at_least(1), Identity::kNo);
  }
};

struct RunConfig {
  std::string tokens;         // path of the token file
  std::string role = "main";
  bool interpolated = false;  // settings guessed between published ones
  ModelConfig model;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  TrainConfig train;
  DataConfig data;
  ParallelConfig parallel;
  EvalConfig eval;

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("tokens", tokens, "token file made by var_data tokenize", Identity::kNo);  // its fingerprint counts
    v.field("role", role, "what the fits use the run for", OneOf{"main", "data", "tune", "trunk"}, Identity::kNo);
    v.field("interpolated", interpolated, "the settings lie between published ones; tables and reports say so", Identity::kNo);
    v.section("model", model, "the transformer");
    v.section("optimizer", optimizer, "AdamW");
    v.section("schedule", schedule, "learning rate over the steps");
    v.section("train", train, "budget, batch, seeds, precision");
    v.section("data", data, "tokens of the training images");
    v.section("parallel", parallel, "how the ranks hold the model");
    v.section("eval", eval, "validation while training");
  }
};

}  // namespace varscale::sweep
