#include "comm/post.hpp"

#include <chrono>
#include <utility>

namespace varscale::comm {

void Letterbox::put(int box, Letter letter) {
  const std::scoped_lock lock(mutex_);
  letters_[box].push_back(std::move(letter));
  changed_.notify_all();
}

std::optional<Letter> Letterbox::take(int box, double timeout_s) {
  std::unique_lock lock(mutex_);
  std::deque<Letter>& letters = letters_[box];
  const auto there = [&] { return !letters.empty() || closed_; };
  if (timeout_s > 0) changed_.wait_for(lock, std::chrono::duration<double>(timeout_s), there);
  if (letters.empty()) return std::nullopt;
  Letter letter = std::move(letters.front());
  letters.pop_front();
  return letter;
}

void Letterbox::close() {
  const std::scoped_lock lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

namespace {

class LocalPost final : public Post {
 public:
  LocalPost(std::shared_ptr<std::vector<Letterbox>> boxes, int rank)
      : boxes_(std::move(boxes)), rank_(rank) {}
  void send(int to, int box, std::string text) override {
    boxes_->at(static_cast<size_t>(to)).put(box, {rank_, std::move(text)});
  }
  std::optional<Letter> take(int box, double timeout_s) override {
    return boxes_->at(static_cast<size_t>(rank_)).take(box, timeout_s);
  }

 private:
  std::shared_ptr<std::vector<Letterbox>> boxes_;
  int rank_;
};

}  // namespace

std::vector<std::shared_ptr<Post>> make_local_post(int size) {
  const auto boxes = std::make_shared<std::vector<Letterbox>>(static_cast<size_t>(size));
  std::vector<std::shared_ptr<Post>> ranks;
  for (int r = 0; r < size; ++r) ranks.push_back(std::make_shared<LocalPost>(boxes, r));
  return ranks;
}

}  // namespace varscale::comm
