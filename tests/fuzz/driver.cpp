#include "tests/fuzz/driver.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/random.hpp"

#if defined(__SANITIZE_ADDRESS__)
// One input that asks for gigabytes is a finding, not a reason to fill the machine.
extern "C" const char* __asan_default_options() { return "max_allocation_size_mb=2048:hard_rss_limit_mb=3000"; }
#endif

namespace varscale::fuzz {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr size_t kLargest = size_t{1} << 20;  // bytes of an input
constexpr size_t kMostInputs = 4000;          // to mutate
constexpr int kMostFindings = 10;
constexpr auto kSlow = std::chrono::milliseconds(50);  // for an input to stay
constexpr auto kHang = std::chrono::seconds(60);

// What the parent knows of the child.
struct Shared {
  std::atomic<uint64_t> executions;
  std::atomic<uint64_t> kinds;  // of outcomes
  size_t size;
  char input[kLargest];
  char message[2000];
};

// Random choices of one execution.
class Chance {
 public:
  Chance(uint64_t seed, uint64_t execution) : stream_(seed, "fuzz", execution) {}
  uint64_t below(uint64_t n) { return n == 0 ? 0 : stream_.below(next_++, n); }
  uint32_t bits() { return stream_.bits(next_++); }
  template <class List>
  const auto& of(const List& list) { return list[below(std::size(list))]; }

 private:
  base::RandomStream stream_;
  uint64_t next_ = 0;
};

constexpr uint64_t kEdges[] = {0, 1, 2, 7, 8, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
                               0x100000000, 0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff};
constexpr const char* kNumbers[] = {"0", "-1", "1", "2147483648", "4294967296", "9007199254740993",
                                    "9223372036854775807", "9223372036854775808", "-9223372036854775808",
                                    "18446744073709551615", "1e15", "1e18", "1e308", "-1e308", "1e-320", "1e999",
                                    ".nan", ".inf", "0x10", "1_000", "0.5", "-0"};

class Mutator {
 public:
  Mutator(const Target& target, const std::vector<std::string>& pool) : target_(target), pool_(pool) {}

  std::string operator()(Chance& chance) const {
    std::string text = chance.of(pool_);
    const uint64_t changes = uint64_t{1} << chance.below(5);
    for (uint64_t i = 0; i < 1 + chance.below(changes); ++i) change(text, chance);
    if (text.size() > kLargest) text.resize(kLargest);
    return text;
  }

 private:
  // A place that is not amidst zeros, of which binary files have many.
  static size_t place(const std::string& text, Chance& chance) {
    size_t at = chance.below(text.size() + 1);
    for (int i = 0; i < 10 && at < text.size() && text[at] == 0; ++i) at = chance.below(text.size() + 1);
    return at;
  }
  static size_t length(size_t most, Chance& chance) {
    return chance.below(std::min<size_t>(most, size_t{1} << chance.below(10)) + 1);
  }

  void change(std::string& text, Chance& chance) const {
    const size_t at = place(text, chance), left = text.size() - at;
    switch (chance.below(13)) {
      case 0:
        if (left > 0) text[at] = static_cast<char>(text[at] ^ 1 << chance.below(8));
        break;
      case 1:
        if (left > 0) text[at] = static_cast<char>(chance.bits());
        break;
      case 2:
        if (left > 0) text[at] = static_cast<char>(chance.of(kEdges));
        break;
      case 3:
        text.resize(at);
        break;
      case 4:
        text.erase(at, length(left, chance));
        break;
      case 5: {
        const std::string piece = text.substr(at, length(left, chance));
        for (uint64_t i = 0; i <= chance.below(4); ++i) text.insert(place(text, chance), piece);
        break;
      }
      case 6: {
        std::string noise(chance.below(9), '\0');
        for (char& byte : noise) byte = static_cast<char>(chance.bits());
        text.insert(at, noise);
        break;
      }
      case 7: {
        const std::string& other = chance.of(pool_);
        const size_t from = place(other, chance);
        text.replace(at, length(left, chance), other.substr(from, length(other.size() - from, chance)));
        break;
      }
      case 8:
        if (!target_.dictionary.empty()) text.insert(at, chance.of(target_.dictionary));
        break;
      case 9:
        if (!target_.dictionary.empty()) text.replace(at, length(left, chance), chance.of(target_.dictionary));
        break;
      case 10: {
        uint64_t value = chance.below(4) == 0 ? text.size() : chance.of(kEdges);
        value += chance.below(3) - 1;
        const size_t bytes = std::min<size_t>(left, size_t{1} << chance.below(4));
        std::memcpy(text.data() + at, &value, bytes);
        break;
      }
      default: {  // a number in the text
        const auto is_digit = [](char symbol) { return symbol >= '0' && symbol <= '9'; };
        const auto begin = std::find_if(text.begin() + static_cast<std::ptrdiff_t>(at), text.end(), is_digit);
        const auto end = std::find_if_not(begin, text.end(), is_digit);
        if (begin != text.end()) text.replace(begin, end, chance.of(kNumbers));
        break;
      }
    }
  }

  const Target& target_;
  const std::vector<std::string>& pool_;
};

// A sentence without what comes from the input: names in quotes, numbers, paths.
std::string kind_of(const std::string& sentence) {
  std::string kind;
  bool quoted = false;
  for (const char symbol : sentence) {
    if (symbol == '\'' || symbol == '"') quoted = !quoted;
    const bool letter = (symbol >= 'a' && symbol <= 'z') || symbol == ' ';
    if (!quoted && letter && kind.size() < 80) kind += symbol;
  }
  return kind;
}

// Reads one input. Returns how it ended; what must not happen ends the process.
std::string read_one(const Target& target, Shared& shared, const std::string& input) {
  shared.size = input.size();
  std::memcpy(shared.input, input.data(), input.size());
  try {
    return "read: " + target.read(input);
  } catch (const base::UserError& error) {
    return error.what();
  } catch (const std::exception& error) {
    const std::string message = fmt::format("{}: {}", typeid(error).name(), error.what());
    std::strncpy(shared.message, message.c_str(), sizeof shared.message - 1);
    ::_exit(3);
  }
}

struct Settings {
  double seconds = 10;
  uint64_t seed = 0;
  fs::path corpus, findings = ".";
  std::vector<fs::path> files;
};

void fuzz_child(const Target& target, Shared& shared, const Settings& settings, std::vector<std::string> pool,
                size_t mutable_inputs, Clock::time_point end) {
  std::set<std::string> kinds;
  const auto is_new = [&](const std::string& ending) {
    const bool inserted = kinds.insert(kind_of(ending)).second;
    shared.kinds = kinds.size();
    return inserted;
  };
  // The corpus itself comes first, every input once; after a finding the next child skips what was read.
  uint64_t execution = shared.executions;
  const uint64_t corpus = pool.size();
  for (; execution < corpus; shared.executions = ++execution) is_new(read_one(target, shared, pool[execution]));
  pool.resize(mutable_inputs);
  for (; Clock::now() < end; shared.executions = ++execution) {
    Chance chance(settings.seed, execution);
    const std::string input = Mutator(target, pool)(chance);
    const Clock::time_point begin = Clock::now();
    const bool fresh = is_new(read_one(target, shared, input));
    if (fresh && pool.size() < kMostInputs && Clock::now() - begin < kSlow) pool.push_back(input);
  }
}

std::string words_of(int status, bool hung, const Shared& shared) {
  if (hung) return "one input took more than 60 s";
  if (shared.message[0] != '\0') return shared.message;
  if (WIFSIGNALED(status)) return fmt::format("signal {}", WTERMSIG(status));
  return fmt::format("exit code {} (a sanitizer's report is above)", WEXITSTATUS(status));
}

// Waits for the child; true where it ended well.
bool wait_for(pid_t child, const Shared& shared, std::string& words) {
  uint64_t seen = 0;
  Clock::time_point moved = Clock::now();
  int status = 0;
  bool hung = false;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    ::usleep(20'000);
    if (shared.executions != seen) {
      seen = shared.executions;
      moved = Clock::now();
    }
    if (!hung && Clock::now() - moved > kHang) {
      hung = true;
      ::kill(child, SIGKILL);
    }
  }
  if (!hung && WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
  words = words_of(status, hung, shared);
  return false;
}

void keep_finding(const Target& target, const Settings& settings, const Shared& shared, const std::string& words) {
  const std::string input(shared.input, shared.size);
  const fs::path path = settings.findings / fmt::format("finding-{}-{}", target.name, base::sha256_hex(input, 6));
  std::ofstream(path, std::ios::binary) << input;
  fmt::print("{}_fuzz: FINDING in execution {}: {}; the input is {}\n", target.name, shared.executions.load(), words,
             path.string());
  std::fflush(stdout);
}

Settings settings_of(int argc, char** argv, const Target& target) {
  Settings settings;
  const char* source = std::getenv("VARSCALE_SOURCE");
  settings.corpus = fs::path(source ? source : ".") / "tests/fuzz/corpus" / target.name;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&]() -> std::string {
      if (++i == argc) throw base::UserError("{}: expected a value behind it", word);
      return argv[i];
    };
    if (word == "--seconds") {
      settings.seconds = std::stod(value());
    } else if (word == "--seed") {
      settings.seed = std::stoull(value());
    } else if (word == "--corpus") {
      settings.corpus = value();
    } else if (word == "--findings") {
      settings.findings = value();
    } else if (word.starts_with("--")) {
      throw base::UserError("{}: expected --seconds, --seed, --corpus, --findings or files", word);
    } else {
      settings.files.emplace_back(word);
    }
  }
  return settings;
}

bool is_finding(const fs::path& file) { return file.filename().string().starts_with("finding-"); }

// The first `mutable_inputs` are to be mutated, too.
std::vector<std::string> inputs_of(const Settings& settings, const Target& target, size_t& mutable_inputs) {
  std::vector<fs::path> files = settings.files;
  if (files.empty()) {
    if (!fs::is_directory(settings.corpus))
      throw base::UserError("{}: no corpus; set VARSCALE_SOURCE or give --corpus", settings.corpus.string());
    for (const auto& entry : fs::directory_iterator(settings.corpus)) files.push_back(entry.path());
    std::ranges::sort(files);
    std::ranges::stable_partition(files, [](const fs::path& file) { return !is_finding(file); });
  }
  std::vector<std::string> inputs = settings.files.empty() ? target.seeds : std::vector<std::string>{};
  mutable_inputs = inputs.size();
  for (const fs::path& file : files) {
    mutable_inputs += !is_finding(file);
    inputs.push_back(base::read_file(file));
    if (inputs.back().size() > kLargest) throw base::UserError("{}: longer than {} bytes", file.string(), kLargest);
  }
  if (settings.files.empty() && mutable_inputs == 0)
    throw base::UserError("{}: nothing to mutate", settings.corpus.string());
  return inputs;
}

base::ExitCode fuzz(int argc, char** argv, const Target& target) {
  Settings settings = settings_of(argc, argv, target);
  size_t mutable_inputs = 0;
  const std::vector<std::string> pool = inputs_of(settings, target, mutable_inputs);
  if (!settings.files.empty()) settings.seconds = 0;
  auto* shared = static_cast<Shared*>(
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  VARSCALE_CHECK(shared != MAP_FAILED, "no shared memory");
  const Clock::time_point end =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(settings.seconds));
  int findings = 0;
  do {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    VARSCALE_CHECK(child >= 0, "no second process");
    if (child == 0) {
#if !defined(__SANITIZE_ADDRESS__)
      const rlimit memory{rlim_t{3} << 30, rlim_t{3} << 30};
      ::setrlimit(RLIMIT_AS, &memory);
#endif
      fuzz_child(target, *shared, settings, pool, mutable_inputs, end);
      std::exit(0);
    }
    std::string words;
    if (wait_for(child, *shared, words)) break;
    keep_finding(target, settings, *shared, words);
    shared->message[0] = '\0';
    ++shared->executions;  // the next child goes on behind it
  } while (++findings < kMostFindings);
  fmt::print("{}_fuzz: {} executions from {} inputs with seed {}, {} kinds of outcome, {} findings\n", target.name,
             shared->executions.load(), pool.size(), settings.seed, shared->kinds.load(), findings);
  return findings == 0 ? base::ExitCode::kDone : base::ExitCode::kFailure;
}

}  // namespace

int run(int argc, char** argv, const Target& target) {
  return base::run_main(target.name + "_fuzz", [&] { return fuzz(argc, argv, target); });
}

Scratch::Scratch() : owner_(::getpid()) {
  const fs::path memory = "/dev/shm";
  std::string pattern =
      ((::access(memory.c_str(), W_OK) == 0 ? memory : fs::temp_directory_path()) / "varscale-fuzz-XXXXXX").string();
  VARSCALE_CHECK(::mkdtemp(pattern.data()) != nullptr, "{} cannot be made", pattern);
  path_ = pattern;
}

Scratch::~Scratch() {
  std::error_code ignored;
  if (::getpid() == owner_) fs::remove_all(path_, ignored);
}

std::string Scratch::write(const std::string& name, const std::string& bytes) const {
  const std::string path = path_ + "/" + name;
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

}  // namespace varscale::fuzz
