// .pth files: the archive lies, or the pickle in it.
#include <fmt/format.h>

#include "tests/hostile/zips.hpp"

namespace varscale::hostile {
namespace {

using namespace std::string_literals;

// Places in the code of Python where a pickle gets hold of something that runs.
struct Callable {
  const char *module, *name;
};
constexpr Callable kCallables[] = {{"posix", "system"},
                                   {"os", "system"},
                                   {"nt", "system"},
                                   {"os", "popen"},
                                   {"subprocess", "Popen"},
                                   {"subprocess", "check_output"},
                                   {"pty", "spawn"},
                                   {"builtins", "eval"},
                                   {"builtins", "exec"},
                                   {"builtins", "__import__"},
                                   {"builtins", "getattr"},
                                   {"__builtin__", "eval"},
                                   {"__builtin__", "execfile"},
                                   {"importlib", "import_module"},
                                   {"runpy", "run_path"},
                                   {"operator", "attrgetter"},
                                   {"functools", "partial"},
                                   {"shutil", "rmtree"},
                                   {"webbrowser", "open"},
                                   {"copyreg", "_reconstructor"},
                                   {"numpy.core.multiarray", "_reconstruct"},
                                   {"numpy", "load"},
                                   {"torch", "load"},
                                   {"torch.hub", "load"},
                                   {"torch.storage", "_load_from_bytes"},
                                   {"torch.utils.data", "DataLoader"},
                                   {"torch._utils", "_rebuild_qtensor"},
                                   {"torch._utils", "_rebuild_tensor_v2.__globals__"},
                                   {"torch", "FloatStorage.from_file"},
                                   {"collections", "OrderedDict.__init__"},
                                   {"_codecs", "decode"},
                                   {"codecs", "encode"}};

std::string text(const std::string& value) {
  std::string code = "X\0\0\0\0"s + value;
  put_number(code, 1, value.size(), 4);
  return code;
}

// Leaves one value on the stack.
std::string call(const Callable& what, const std::string& argument, Chance& chance) {
  const std::string global = fmt::format("c{}\n{}\n", what.module, what.name);
  switch (chance.below(7)) {
    case 0: return fmt::format("({}i{}\n{}\n", text(argument), what.module, what.name);      // by instance
    case 1: return "(" + global + text(argument) + "o";                                     // by class
    case 2: return global + text(argument) + "\x85\x81";                                    // a new object
    case 3: return text(what.module) + text(what.name) + "\x93" + text(argument) + "\x85R";  // from the stack
    case 4: return ")\x81" + global + text(argument) + "\x85Rb";                             // as the state of one
    default: return global + text(argument) + "\x85R";
  }
}

std::string forbidden(const std::string& pickle, Chance& chance) {
  const Callable what = chance.of(kCallables);
  const std::string argument = fmt::format("touch {}", kMarker), hostile = call(what, argument, chance);
  const std::string begin = pickle.substr(0, 2), rest = pickle.substr(2);
  switch (chance.below(4)) {
    case 0: return begin + hostile + ".";
    case 1: return begin + hostile + "0" + rest;  // dropped, with all that was there behind it
    case 2: {
      // In the place of a global that is known.
      std::string changed = pickle;
      const size_t at = changed.find("ctorch");
      if (at == std::string::npos) return begin + "]" + hostile + "a.";
      const size_t end = changed.find('\n', changed.find('\n', at) + 1);
      return changed.replace(at, end + 1 - at, fmt::format("c{}\n{}\n", what.module, what.name));
    }
    default: return begin + "}" + text("state_dict") + hostile + "s.";
  }
}

std::string swapped(const std::string& pickle, Chance& chance) {
  constexpr std::string_view kCodes =
      "(.0122FGIJKLMNPQRSTUVX]abcdeghijloprstu}\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x93\x94\x95";
  std::string changed = pickle;
  for (uint64_t i = 0, count = 1 + chance.below(4); i < count; ++i) {
    size_t at = chance.below(changed.size());
    for (int tries = 0; tries < 50 && kCodes.find(changed[at]) == kCodes.npos; ++tries)
      at = chance.below(changed.size());
    if (chance.below(3) > 0)
      changed[at] = chance.of(kCodes);
    else
      changed.insert(at, changed.substr(chance.below(changed.size()), chance.below(40)));
  }
  return changed;
}

std::string endless(Chance& chance) {
  const std::string begin = "\x80\x02";
  switch (chance.below(6)) {
    case 0: return begin + "]q\1h\1a.";                          // a list in itself
    case 1: return begin + "}q\1" + text("k") + "h\1s.";         // a dictionary in itself
    case 2: return begin + "]q\1(h\1h\1tq\2ah\2.";                // a list in a tuple in it
    case 3: {                                                    // containers in containers
      const std::string codes[] = {"("s, "]"s, "}"s + text("k"), "(]"s};
      const std::string& code = chance.of(codes);
      std::string deep = begin;
      for (uint64_t i = 0, depth = 60 + chance.below(50'000); i < depth; ++i) deep += code;
      return deep + "N.";
    }
    case 4: {  // each tuple ten times the one before
      std::string laughs = begin + "((NNNNNNNNNNt";
      for (char i = 1; i <= 20; ++i) {
        laughs += "q"s + i + "(";
        for (int k = 0; k < 10; ++k) laughs += "h"s + i;
        laughs += "t";
      }
      return laughs + "t.";
    }
    default: {  // values without end, or a text of 4 GB
      if (chance.below(2) == 0) return begin + "X\xff\xff\xff\xff" + "abc.";
      return begin + "(" + std::string(1'000'000 + chance.below(2'000'000), 'N') + "t.";
    }
  }
}

// The archive with its pickle changed.
template <class Change>
std::string with_pickle(const Original& original, const Change& change) {
  if (!original.bytes.starts_with("PK")) {  // the older form: the fourth of its pickles, roughly
    const size_t at = original.bytes.find("\x80\x02}", 20);
    return original.bytes.substr(0, at) + change(original.bytes.substr(at));
  }
  std::vector<Entry> entries = entries_of(original.bytes);
  for (Entry& entry : entries)
    if (entry.name.ends_with("/data.pkl")) entry.bytes = change(entry.bytes);
  return zip_of(entries);
}

std::string bomb(const Original& original, Chance& chance) {
  static const std::string kZeros = [] {  // 80 MB, of which the directory tells the truth
    std::vector<Entry> entries = entries_of(fixture("pth/misc_types.pth"));
    for (Entry& entry : entries)
      if (entry.name.ends_with("/data.pkl")) entry = {entry.name, std::string(80'000'000, 'N'), true};
    return zip_of(entries);
  }();
  return chance.below(4) == 0 || !original.has_sums ? kZeros : claim_size(original.bytes, chance);
}

}  // namespace

std::string running_pickle() {
  return fmt::format("\x80\x02"
                     "cposix\nsystem\n{}\x85R.",
                     text(fmt::format("touch {}", kMarker)));
}

Format pth_files() {
  Format format{".pth", {}, {}};
  for (const char* name : {"misc_types", "vae_tiny_part", "var_d1_tiny", "trainer_ckpt_tiny", "legacy_format"})
    format.originals.push_back({name, fixture(fmt::format("pth/{}.pth", name)), name != "legacy_format"s});
  std::vector<Entry> packed = entries_of(format.originals[0].bytes);
  for (Entry& entry : packed) entry.deflate = true;
  format.originals.push_back({"deflated", zip_of(packed), true});
  format.kinds = common_kinds(format.originals);
  const auto on_zip = [](auto lie) {  // the older form has no directory; its lengths are lied about instead
    return [lie](const Original& original, Chance& chance) {
      if (original.has_sums) return lie(original.bytes, chance);
      std::string changed = original.bytes;
      put_number(changed, changed.size() - 8 * (1 + chance.below(40)), edge(chance, changed.size()), 8);
      return changed;
    };
  };
  format.kinds.push_back({"directory lies", false, on_zip(lie_in_directory)});
  format.kinds.push_back({"shared entries", true, on_zip(share_entries)});
  format.kinds.push_back({"bombs", true, bomb});
  format.kinds.push_back({"pickle codes swapped", true, [](const Original& original, Chance& chance) {
                            return with_pickle(original, [&](const std::string& p) { return swapped(p, chance); });
                          }});
  format.kinds.push_back({"forbidden globals", true, [](const Original& original, Chance& chance) {
                            return with_pickle(original, [&](const std::string& p) { return forbidden(p, chance); });
                          }});
  format.kinds.push_back({"cycles and depths", true, [](const Original& original, Chance& chance) {
                            return with_pickle(original, [&](const std::string&) { return endless(chance); });
                          }});
  return format;
}

}  // namespace varscale::hostile
