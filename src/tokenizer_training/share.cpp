#include "tokenizer_training/share.hpp"

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::tokenizer_training {

using base::UserError;

Share::Share(const TrainConfig& config, int64_t images, const comm::Communicator& world)
    : batch_(config.batch),
      count_(config.images > 0 ? config.images : images),
      seed_(config.seed),
      random_crops_(config.crop == "random"),
      micro_batches_(config.batch, config.micro_batch, world) {
  if (images < 1) throw UserError("there are no images to train the tokenizer on");
  if (count_ > images)
    throw UserError("train.images is {}, but there are only {} images", config.images, images);
  if (batch_ < world.size())
    throw UserError("train.batch is {}, expected at least one image for each of the {} ranks", batch_, world.size());
  if (count_ == images) return;
  const base::Permutation draw(static_cast<uint64_t>(images), seed_, "tokenizer.images");
  subset_.emplace();
  for (int64_t i = 0; i < count_; ++i) subset_->push_back(static_cast<int64_t>(draw(static_cast<uint64_t>(i))));
}

Portion Share::rows(int64_t step, int64_t begin, int64_t end) const {
  Portion portion{.images = {}, .samples = {}, .first = begin};
  for (int64_t i = begin; i < end; ++i) {
    const int64_t place = step * batch_ + i, pass = place / count_;
    const base::Permutation order(static_cast<uint64_t>(count_), seed_, "tokenizer.epoch",
                                  static_cast<uint64_t>(pass));
    const auto number = static_cast<int64_t>(order(static_cast<uint64_t>(place % count_)));
    portion.images.numbers.push_back(subset_ ? (*subset_)[static_cast<size_t>(number)] : number);
    portion.images.crops.push_back(random_crops_ ? pass : 0);
    portion.samples.push_back(place);
  }
  return portion;
}

Portion Share::of(int64_t step, int64_t pass) const {
  const parallel::Share mine = micro_batches_.rows(pass);
  Portion portion = mine.count() > 0 ? rows(step, mine.begin, mine.end) : rows(step, 0, 1);
  portion.counted = mine.count() > 0;
  return portion;
}

}  // namespace varscale::tokenizer_training
