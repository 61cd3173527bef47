#include "archives/pickle.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <unordered_set>

#include "archives/pickle/node.hpp"
#include "archives/printable.hpp"
#include "base/error.hpp"

namespace varscale::archives {

using base::DType;
using base::UserError;

namespace {

struct StorageType {
  std::string_view name;
  DType dtype;
};
constexpr std::array<StorageType, 10> kStorageTypes = {{{"DoubleStorage", DType::kF64},
                                                        {"FloatStorage", DType::kF32},
                                                        {"HalfStorage", DType::kF16},
                                                        {"BFloat16Storage", DType::kBF16},
                                                        {"LongStorage", DType::kI64},
                                                        {"IntStorage", DType::kI32},
                                                        {"ShortStorage", DType::kI16},
                                                        {"CharStorage", DType::kI8},
                                                        {"ByteStorage", DType::kU8},
                                                        {"BoolStorage", DType::kBool}}};

constexpr std::array<std::string_view, 14> kDtypes = {"float64", "float32", "float16", "bfloat16", "int64",
                                                      "int32",   "int16",   "int8",    "uint8",    "bool",
                                                      "double",  "float",   "half",    "long"};

enum Global : int64_t {
  kOrderedDict,
  kMakeSet,
  kSize,
  kDevice,
  kRebuildTensor,
  kRebuildTensorV2,
  kRebuildParameter,
  kEncode,
  kStorageTypeBegin,  // and the types in order
};

struct KnownGlobal {
  std::string_view module, name;
  Global global;
};
constexpr std::array<KnownGlobal, 9> kKnownGlobals = {{{"collections", "OrderedDict", kOrderedDict},
                                                       {"__builtin__", "set", kMakeSet},
                                                       {"builtins", "set", kMakeSet},
                                                       {"torch", "Size", kSize},
                                                       {"torch", "device", kDevice},
                                                       {"torch._utils", "_rebuild_tensor", kRebuildTensor},
                                                       {"torch._utils", "_rebuild_tensor_v2", kRebuildTensorV2},
                                                       {"torch._utils", "_rebuild_parameter", kRebuildParameter},
                                                       {"_codecs", "encode", kEncode}}};

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t at) { return static_cast<unsigned char>(text[at]); };
    const unsigned char first = byte(i);
    const size_t length = first < 0x80   ? 1
                          : first < 0xc2 ? 0
                          : first < 0xe0 ? 2
                          : first < 0xf0 ? 3
                          : first < 0xf5 ? 4
                                         : 0;
    if (length == 0 || i + length > text.size()) return false;
    for (size_t k = 1; k < length; ++k)
      if ((byte(i + k) & 0xc0) != 0x80) return false;
    if (length == 3 && first == 0xe0 && byte(i + 1) < 0xa0) return false;
    if (length == 4 && ((first == 0xf0 && byte(i + 1) < 0x90) || (first == 0xf4 && byte(i + 1) > 0x8f))) return false;
    i += length;
  }
  return true;
}

}  // namespace

class Unpickler {
 public:
  Unpickler(std::string_view bytes, const std::string& where, const PickleLimits& limits)
      : bytes_(bytes), where_(where), limits_(limits) {}

  Pickle run() {
    while (step()) {
    }
    if (stack_.size() != 1 || !marks_.empty()) fail("ends with {} values on its stack, expected one", stack_.size());
    pickle_.root_ = stack_.back();
    pickle_.end_ = at_;
    check_tree();
    return std::move(pickle_);
  }

 private:
  using Node = Pickle::Node;

  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw UserError("{}, byte {}: {}", where_, begin_, fmt::format(format, std::forward<Args>(args)...));
  }

  // --- bytes ---
  std::string_view take(size_t count) {
    if (count > bytes_.size() - at_) fail("truncated: {} bytes are needed, {} are left", count, bytes_.size() - at_);
    const std::string_view taken = bytes_.substr(at_, count);
    at_ += count;
    return taken;
  }
  uint64_t number(size_t count) {  // little-endian
    uint64_t value = 0;
    const std::string_view taken = take(count);
    for (size_t i = 0; i < count; ++i) value |= uint64_t{static_cast<unsigned char>(taken[i])} << (8 * i);
    return value;
  }
  std::string_view line() {
    const size_t end = bytes_.find('\n', at_);
    constexpr size_t kMostName = 256;
    if (end == std::string_view::npos || end - at_ > kMostName) fail("a name without an end");
    const std::string_view taken = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return taken;
  }

  // --- the stack ---
  Node& node(uint32_t index) { return pickle_.nodes_[index]; }
  void push(Node value) {
    if (pickle_.nodes_.size() >= limits_.values) fail("more than {} values", limits_.values);
    pickle_.nodes_.push_back(std::move(value));
    stack_.push_back(static_cast<uint32_t>(pickle_.nodes_.size() - 1));
  }
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  uint32_t pop() {
    if (stack_.size() <= floor()) fail("takes a value from an empty stack");
    const uint32_t top = stack_.back();
    stack_.pop_back();
    return top;
  }
  uint32_t top() {
    if (stack_.size() <= floor()) fail("takes a value from an empty stack");
    return stack_.back();
  }
  std::vector<uint32_t> pop_mark() {
    if (marks_.empty()) fail("takes values down to a mark that is not there");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<uint32_t> values(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return values;
  }
  std::string_view name_of(uint32_t index) { return kNames[static_cast<size_t>(node(index).kind)]; }
  const Node& expect(uint32_t index, NodeKind kind, std::string_view what) {
    if (node(index).kind != kind)
      fail("{} is {}, expected {}", what, name_of(index), kNames[static_cast<size_t>(kind)]);
    return node(index);
  }

  void tuple_of_top(size_t count) {
    std::vector<uint32_t> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    push({.kind = NodeKind::kTuple, .items = std::move(items)});
  }
  void append(const std::vector<uint32_t>& values) {
    const uint32_t list = top();
    expect(list, NodeKind::kList, "what is appended to");
    auto& items = node(list).items;
    items.insert(items.end(), values.begin(), values.end());
  }
  void set_items(const std::vector<uint32_t>& values) {
    const uint32_t dict = top();
    expect(dict, NodeKind::kDict, "what items are set in");
    if (values.size() % 2 != 0) fail("a key without a value");
    for (size_t i = 0; i < values.size(); i += 2) {
      const NodeKind kind = node(values[i]).kind;
      if (kind > NodeKind::kBytes && kind != NodeKind::kTuple) fail("{} as a key of a dict", name_of(values[i]));
    }
    auto& items = node(dict).items;
    items.insert(items.end(), values.begin(), values.end());
  }
  void push_text(NodeKind kind, std::string_view text) {
    if (kind == NodeKind::kText && !is_utf8(text)) fail("a text that is not UTF-8");
    push({.kind = kind, .text = std::string(text)});
  }
  void push_integer(int64_t value) { push({.kind = NodeKind::kInt, .integer = value}); }
  void push_long(size_t count) {
    if (count > sizeof(uint64_t)) fail("an integer of {} bytes, at most {} are read", count, sizeof(uint64_t));
    const uint64_t value = number(count);
    if (count == 0) return push_integer(0);
    const unsigned unused = static_cast<unsigned>(64 - 8 * count);  // the sign is in the highest bit
    push_integer(static_cast<int64_t>(value << unused) >> unused);
  }
  void put(uint64_t index) { memo_[index] = top(); }
  void get(uint64_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) fail("asks for the remembered value {}, which there is not", index);
    stack_.push_back(found->second);
  }

  // --- names and calls ---
  void global(std::string_view module, std::string_view name) {
    for (const KnownGlobal& known : kKnownGlobals)
      if (module == known.module && name == known.name)
        return push({.kind = NodeKind::kGlobal, .integer = known.global});
    if (module == "torch") {
      for (size_t i = 0; i < kStorageTypes.size(); ++i)
        if (name == kStorageTypes[i].name)
          return push({.kind = NodeKind::kGlobal, .integer = kStorageTypeBegin + static_cast<int64_t>(i)});
      if (std::ranges::find(kDtypes, name) != kDtypes.end())
        return push_text(NodeKind::kText, "torch." + std::string(name));
    }
    fail("names {}.{}, which is not among what weights are made of; nothing of it is run", printable(module),
         printable(name));
  }

  void reduce() {
    const uint32_t arguments = pop(), callee = pop();
    const auto which = expect(callee, NodeKind::kGlobal, "what is called").integer;
    const std::vector<uint32_t> given = expect(arguments, NodeKind::kTuple, "what it is called with").items;
    const auto wants = [&](bool right, std::string_view what) {
      if (!right) fail("{} with {} arguments, or others than torch writes", what, given.size());
    };
    switch (which) {
      case kOrderedDict:
        wants(given.empty(), "collections.OrderedDict");
        return push({.kind = NodeKind::kDict});
      case kMakeSet:
        wants(given.size() == 1 && node(given[0]).kind == NodeKind::kList, "set");
        return push({.kind = NodeKind::kSet, .items = node(given[0]).items});
      case kSize:
        wants(given.size() == 1 && node(given[0]).kind == NodeKind::kTuple, "torch.Size");
        stack_.push_back(given[0]);
        return;
      case kDevice: {
        wants(!given.empty() && given.size() <= 2 && node(given[0]).kind == NodeKind::kText &&
                  (given.size() == 1 || node(given[1]).kind == NodeKind::kInt),
              "torch.device");
        std::string text = node(given[0]).text;
        if (given.size() == 2) text += fmt::format(":{}", node(given[1]).integer);
        return push_text(NodeKind::kText, text);
      }
      case kEncode:
        wants(given.size() == 2 && node(given[0]).kind == NodeKind::kText && node(given[1]).kind == NodeKind::kText &&
                  node(given[1]).text == "latin1",
              "_codecs.encode");
        return push_text(NodeKind::kBytes, latin1(node(given[0]).text));
      case kRebuildTensor:
        wants(given.size() == 4, "torch._utils._rebuild_tensor");
        return tensor(given);
      case kRebuildTensorV2:
        wants((given.size() == 6 || given.size() == 7) && node(given[5]).kind == NodeKind::kDict,
              "torch._utils._rebuild_tensor_v2");
        return tensor(given);
      case kRebuildParameter:
        wants(given.size() == 3 && node(given[0]).kind == NodeKind::kTensor, "torch._utils._rebuild_parameter");
        stack_.push_back(given[0]);
        return;
      default:
        fail("calls the type of a storage");
    }
  }

  std::string latin1(std::string_view utf8) {
    std::string bytes;
    for (size_t i = 0; i < utf8.size(); ++i) {
      const auto first = static_cast<unsigned char>(utf8[i]);
      if (first < 0x80) {
        bytes += utf8[i];
      } else {
        if (first > 0xc3) fail("bytes as a text with characters above 255");
        bytes += static_cast<char>(((first & 3) << 6) | (utf8[++i] & 0x3f));
      }
    }
    return bytes;
  }

  // ("storage", type, key, place, elements), in the older form with a sixth: None where it is no view.
  void persistent() {
    const std::vector<uint32_t> parts = expect(pop(), NodeKind::kTuple, "what names a storage").items;
    const bool right = (parts.size() == 5 || (parts.size() == 6 && node(parts[5]).kind == NodeKind::kNone)) &&
                       node(parts[0]).kind == NodeKind::kText && node(parts[0]).text == "storage" &&
                       node(parts[1]).kind == NodeKind::kGlobal && node(parts[1]).integer >= kStorageTypeBegin &&
                       node(parts[2]).kind == NodeKind::kText && node(parts[4]).kind == NodeKind::kInt;
    if (!right) fail("a storage that is not named as torch names it");
    const DType dtype = kStorageTypes[static_cast<size_t>(node(parts[1]).integer - kStorageTypeBegin)].dtype;
    const std::string key = node(parts[2]).text;
    const int64_t numel = node(parts[4]).integer;
    const auto largest = static_cast<int64_t>(std::numeric_limits<int64_t>::max() / 8);
    if (numel < 0 || numel > largest) fail("storage '{}' of {} elements", printable(key), numel);
    const auto [stored, is_new] = pickle_.storages_.emplace(key, PthStorage{dtype, numel});
    if (!is_new && (stored->second.dtype != dtype || stored->second.numel != numel))
      fail("storage '{}' is used as {} of {} elements and as {} of {}", printable(key),
           base::dtype_name(stored->second.dtype), stored->second.numel, base::dtype_name(dtype), numel);
    push({.kind = NodeKind::kStorage, .text = key});
  }

  std::vector<int64_t> integers(uint32_t index, std::string_view what) {
    std::vector<int64_t> values;
    constexpr size_t kMostDims = 64;  // torch's own limit
    const Node& tuple = expect(index, NodeKind::kTuple, what);
    if (tuple.items.size() > kMostDims) fail("a tensor of {} dimensions", tuple.items.size());
    for (const uint32_t item : tuple.items) {
      const int64_t value = expect(item, NodeKind::kInt, what).integer;
      if (value < 0) fail("{} of {}", what, value);
      values.push_back(value);
    }
    return values;
  }

  void tensor(const std::vector<uint32_t>& given) {
    PthTensor tensor;
    tensor.storage = expect(given[0], NodeKind::kStorage, "what a tensor lies in").text;
    const PthStorage& storage = pickle_.storages_.at(tensor.storage);
    tensor.dtype = storage.dtype;
    tensor.offset = expect(given[1], NodeKind::kInt, "a tensor's offset").integer;
    tensor.shape = integers(given[2], "a tensor's size");
    tensor.strides = integers(given[3], "a tensor's stride");
    if (tensor.shape.size() != tensor.strides.size())
      fail("a tensor of {} sizes and {} strides", tensor.shape.size(), tensor.strides.size());
    const auto refuse = [&](std::string_view why) {
      fail("a tensor of shape [{}], strides [{}] and offset {} {} its storage of {} elements",
           fmt::join(tensor.shape, ", "), fmt::join(tensor.strides, ", "), tensor.offset, why, storage.numel);
    };
    const bool empty = std::ranges::find(tensor.shape, 0) != tensor.shape.end();
    if (tensor.offset < 0 || tensor.offset > storage.numel) refuse("begins outside");
    int64_t last = tensor.offset, count = 1;
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      int64_t reach = 0;
      if (__builtin_mul_overflow(count, std::max<int64_t>(tensor.shape[i], 1), &count))
        refuse("has more elements than 64 bits count in");
      if (empty) continue;
      if (__builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &reach) ||
          __builtin_add_overflow(last, reach, &last))
        refuse("reaches beyond");
    }
    if (!empty && last >= storage.numel) refuse("reaches beyond");
    if (!empty && count > storage.numel && count > limits_.repeated) refuse("repeats the elements of");
    push({.kind = NodeKind::kTensor, .integer = static_cast<int64_t>(pickle_.tensors_.size())});
    pickle_.tensors_.push_back(std::move(tensor));
  }

  // --- one operation; false at the end ---
  bool step() {
    begin_ = at_;
    if (++operations_ > limits_.operations) fail("more than {} operations", limits_.operations);
    const char code = take(1)[0];
    switch (code) {
      case '\x80':  // PROTO
        if (const uint64_t protocol = number(1); protocol != 2 || at_ != 2)
          fail("pickle protocol {}; expected 2, which torch.save writes unless told otherwise", protocol);
        return true;
      case '.':  // STOP
        return false;
      case '(':  // MARK
        marks_.push_back(stack_.size());
        return true;
      case 'N':
        push({});
        return true;
      case '\x88':
        push({.kind = NodeKind::kBool, .integer = 1});
        return true;
      case '\x89':
        push({.kind = NodeKind::kBool, .integer = 0});
        return true;
      case 'J':  // BININT
        push_integer(static_cast<int32_t>(number(4)));
        return true;
      case 'K':
        push_integer(static_cast<int64_t>(number(1)));
        return true;
      case 'M':
        push_integer(static_cast<int64_t>(number(2)));
        return true;
      case '\x8a':  // LONG1
        push_long(static_cast<size_t>(number(1)));
        return true;
      case 'G': {  // BINFLOAT, big-endian
        const std::string_view taken = take(8);
        uint64_t bits = 0;
        for (const char byte : taken) bits = bits << 8 | static_cast<unsigned char>(byte);
        push({.kind = NodeKind::kFloat, .real = std::bit_cast<double>(bits)});
        return true;
      }
      case 'X':  // BINUNICODE
        push_text(NodeKind::kText, take(number(4)));
        return true;
      case 'U':  // SHORT_BINSTRING, of Python 2
        push_text(NodeKind::kText, take(number(1)));
        return true;
      case ')':
        push({.kind = NodeKind::kTuple});
        return true;
      case ']':
        push({.kind = NodeKind::kList});
        return true;
      case '}':
        push({.kind = NodeKind::kDict});
        return true;
      case '\x8f':
        push({.kind = NodeKind::kSet});
        return true;
      case 't': {
        std::vector<uint32_t> items = pop_mark();
        push({.kind = NodeKind::kTuple, .items = std::move(items)});
        return true;
      }
      case '\x85':
      case '\x86':
      case '\x87':
        tuple_of_top(static_cast<size_t>(static_cast<unsigned char>(code) - 0x84));
        return true;
      case 'a': {
        const uint32_t value = pop();
        append({value});
        return true;
      }
      case 'e':
        append(pop_mark());
        return true;
      case 's': {
        const uint32_t value = pop(), key = pop();
        set_items({key, value});
        return true;
      }
      case 'u':
        set_items(pop_mark());
        return true;
      case 'q':
        put(number(1));
        return true;
      case 'r':
        put(number(4));
        return true;
      case 'h':
        get(number(1));
        return true;
      case 'j':
        get(number(4));
        return true;
      case 'c': {
        const std::string_view module = line(), name = line();
        global(module, name);
        return true;
      }
      case 'R':
        reduce();
        return true;
      case 'Q':
        persistent();
        return true;
      case 'b': {  // BUILD: the state of an OrderedDict says nothing about tensors
        expect(pop(), NodeKind::kDict, "a state");
        expect(top(), NodeKind::kDict, "what has a state");
        return true;
      }
      default:
        fail("operation 0x{:02x}, which torch.save does not write", static_cast<unsigned char>(code));
    }
  }

  // Nothing contains itself, nests too deep or becomes huge where it is walked; dicts have each key once.
  void check_tree() {
    enum : char { kNew, kOpen, kDone };
    const size_t count = pickle_.nodes_.size();
    std::vector<char> state(count, kNew);
    std::vector<int64_t> height(count, 0);
    std::vector<uint64_t> expanded(count, 1);
    std::vector<std::pair<uint32_t, size_t>> path = {{pickle_.root_, 0}};
    while (!path.empty()) {
      auto& [index, next] = path.back();
      Node& at = node(index);
      if (next == 0) {
        state[index] = kOpen;
        if (at.kind == NodeKind::kGlobal || at.kind == NodeKind::kStorage)
          fail("{} stands where a value is expected", name_of(index));
        if (at.kind == NodeKind::kDict) check_keys(at);
      }
      if (next < at.items.size()) {
        const uint32_t child = at.items[next++];
        if (state[child] == kOpen) fail("a value contains itself");
        if (state[child] == kNew) path.emplace_back(child, 0);
        continue;
      }
      for (const uint32_t child : at.items) {
        height[index] = std::max(height[index], height[child] + 1);
        expanded[index] = std::min(expanded[index] + expanded[child], limits_.expanded + 1);
      }
      if (height[index] > limits_.depth) fail("values nest more than {} deep", limits_.depth);
      if (expanded[index] > limits_.expanded)
        fail("values that are used in several places come to more than {}", limits_.expanded);
      state[index] = kDone;
      path.pop_back();
    }
  }

  void check_keys(const Node& dict) {
    std::unordered_set<std::string_view> texts;
    std::unordered_set<int64_t> integers;
    for (size_t i = 0; i < dict.items.size(); i += 2) {
      const Node& key = node(dict.items[i]);
      const bool is_new = key.kind == NodeKind::kText  ? texts.insert(key.text).second
                          : key.kind == NodeKind::kInt ? integers.insert(key.integer).second
                                                       : true;
      if (!is_new)
        fail("a dict has key {} twice",
             key.kind == NodeKind::kText ? "'" + printable(key.text) + "'" : fmt::format("{}", key.integer));
    }
  }

  std::string_view bytes_;
  std::string where_;
  PickleLimits limits_;
  size_t at_ = 0, begin_ = 0, operations_ = 0;
  Pickle pickle_;
  std::vector<uint32_t> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, uint32_t> memo_;
};

Pickle unpickle(std::string_view bytes, const std::string& where, const PickleLimits& limits) {
  return Unpickler(bytes, where, limits).run();
}

}  // namespace varscale::archives
