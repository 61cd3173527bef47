// Images drawn by the ranks of a launch, over as many launches as it takes.
//
//   SampleJob job({.folder = "samples.npz.part", .requests = requests, ...}, *world);
//   if (!job.draw(sampler, tokenizer, [&] { return stop.requested(); })) return kStopped;   // goes on next time
//   job.read(i, pixels);                                         // of requests[i], for whoever writes the outputs
//   job.read_tokens(i, tokens_L);                                // likewise
//   Tensor images_u8_B3XX = job.batch(0, 32);                    // for whoever looks at them
//   job.finish();
//
// Folder   job.json says what is drawn; group-<number>.u8 has the pixels of a group's requested images by their slots,
//          then their tokens, two bytes each; complete or absent. lock and stop are for the ranks. What is there already
//          is not drawn again.
// Ranks    The groups that are left are divided into equal runs. All ranks see the folder. Pixels do not depend on the
//          number of ranks or launches, at one number of threads a rank: a group is always computed as a whole.
// Order    The constructor and draw() are collective.
// Memory   The images of one batch.
// Errors   UserError on every rank: the folder cannot be written, holds other work (with the first difference), or
//          another launch is at work in it; ranks that see another model.
// Legend   B images, L tokens of an image, X side.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/file.hpp"
#include "comm/communicator.hpp"
#include "generate/sampler.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::generate {

struct SampleWork {
  std::filesystem::path folder;
  std::vector<Request> requests;
  int64_t group = 8;   // slots, those of the sampler's options
  int64_t side = 0;    // pixels of an image
  int64_t tokens = 0;  // of an image
  int64_t batch = 64;  // images between two writes, rounded up to whole groups
  nlohmann::ordered_json settings;  // what must be equal to go on: everything that pixels depend on
};

class SampleJob {
 public:
  SampleJob(SampleWork work, comm::Communicator& world);
  SampleJob(const SampleJob&) = delete;
  SampleJob& operator=(const SampleJob&) = delete;

  int64_t images_before() const noexcept { return images_before_; }  // there as this launch began
  int64_t images_done() const;                                       // now, by all ranks

  // Asks `stop` after each batch, of every rank; one that says so stops all of them. False: stopped before the last.
  bool draw(const Sampler& sampler, const tokenizer::Vqvae& tokenizer, const std::function<bool()>& stop = {});

  // Pixels [side, side, 3] of requests[i], once all are done.
  void read(int64_t i, uint8_t* out) const;
  // Its tokens [L], map after map; where the sampler smooths, those of the largest weights.
  void read_tokens(int64_t i, uint16_t* out_L) const;
  // Of requests [begin, begin + count), at most to the last: uint8 [B, 3, side, side].
  Tensor batch(int64_t begin, int64_t count) const;
  void finish();  // the first rank removes the folder; what is to be kept has been written

 private:
  std::filesystem::path path_of(int64_t group) const;
  bool is_done(int64_t group) const;
  void enter();
  size_t image_bytes() const { return static_cast<size_t>(work_.side * work_.side * 3); }
  size_t token_bytes() const { return static_cast<size_t>(work_.tokens) * sizeof(uint16_t); }
  void read_at(int64_t group, size_t place, void* out, size_t bytes) const;

  SampleWork work_;
  comm::Communicator& world_;
  std::vector<std::vector<int64_t>> groups_;  // requests of each
  struct Place {
    int64_t group;
    size_t position;
  };
  std::vector<Place> places_;  // of the requests
  std::vector<int64_t> left_;  // groups that this launch draws
  int64_t images_before_ = 0;
  base::LockedFolder lock_;  // of the first rank
};

}  // namespace varscale::generate
