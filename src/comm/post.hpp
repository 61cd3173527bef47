// Letters between the ranks of a launch, for what no collective can do.
//
//   const auto post = world->post();
//   post->send(0, kCoordinator, "idle");                  // at any time, from any thread
//   while (auto letter = post->take(kWorker, 0.1)) ...    // waits so long; 0: what is there
//
// A rank's letters to one box of another arrive in order. Boxes are numbered from 0; each is read by one
// thread. Errors   CommError: the launch's communication has failed.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace varscale::comm {

struct Letter {
  int from = 0;
  std::string text;
};

class Post {
 public:
  virtual ~Post() = default;
  virtual void send(int to, int box, std::string text) = 0;
  virtual std::optional<Letter> take(int box, double timeout_s) = 0;
};

// The boxes of one rank.
class Letterbox {
 public:
  void put(int box, Letter letter);
  std::optional<Letter> take(int box, double timeout_s);
  // Nothing will come any more: takers wake up.
  void close();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int, std::deque<Letter>> letters_;
  bool closed_ = false;
};

// The post of `size` ranks in one process, by rank.
std::vector<std::shared_ptr<Post>> make_local_post(int size);

}  // namespace varscale::comm
