// Tar archives: headers, names, long names and labels that lie, with their checksums right.
#include <fmt/format.h>

#include "tests/data/tar_writer.hpp"
#include "tests/hostile/generator.hpp"

namespace varscale::hostile {
namespace {

using namespace std::string_literals;
using data::TarText;

// Places of the headers, as their sizes say.
std::vector<size_t> headers_of(const std::string& tar) {
  std::vector<size_t> places;
  for (size_t at = 0; at + 512 <= tar.size() && tar[at] != '\0';) {
    places.push_back(at);
    const size_t bytes = std::stoull(tar.substr(at + 124, 11), nullptr, 8);
    at += 512 + (bytes + 511) / 512 * 512;
  }
  return places;
}

void mend_sum(std::string& tar, size_t header) {
  tar.replace(header + 148, 8, "        ");
  unsigned sum = 0;
  for (size_t i = 0; i < 512; ++i) sum += static_cast<unsigned char>(tar[header + i]);
  tar.replace(header + 148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
}

std::string header_lie(const Original& original, Chance& chance) {
  std::string tar = original.bytes;
  const size_t header = chance.of(headers_of(tar));
  const auto put = [&](size_t at, std::string field, size_t bytes) {
    field.resize(bytes, '\0');
    tar.replace(header + at, bytes, field);
  };
  const std::string sizes[] = {"77777777777", "00000000000", "-0000000001", "0x000000010", "99999999999", "",
                               "7777777777777", std::string("\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 12),
                               std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", 12),
                               std::string("\x80\0\0\0\0\0\0\0\0\0\2\0", 12)};
  switch (chance.below(5)) {
    case 0: put(124, chance.of(sizes), 12); break;
    case 1: put(124, fmt::format("{:011o}", edge(chance, tar.size()) & 0777777777), 12); break;
    case 2: tar[header + 156] = chance.of("0123456 7LKxgSVMD\0Z"s); break;
    case 3: put(257, std::string(8, chance.byte()), 8); break;
    default: tar[header + chance.below(512)] = chance.byte(); break;
  }
  mend_sum(tar, header);
  return tar;
}

std::string name_lie(const Original& original, Chance& chance) {
  const std::string names[] = {fmt::format("../{}", kMarker), fmt::format("../../{}.png", kMarker),
                               fmt::format("./{}", kMarker), "/", "..", ".", "a//b.png", "a.png/", "\n\n.png",
                               std::string(100, 'n'), "\xff\xfe.png", "%s%n.png"};
  const std::string name = chance.of(names);
  TarText tar(chance.below(2) == 0 ? TarText::Kind::kGnu : TarText::Kind::kPax);
  const std::string& png = original.bytes;  // any bytes
  switch (chance.below(5)) {
    case 0: tar.raw(kMarker, "", '2'); break;                      // a link, which tar would make
    case 1: tar.raw(name, "", chance.of(std::string("12345")));    // links, devices, folders
            break;
    case 2: tar.raw("././@LongLink", name + std::string(chance.below(70'000), 'm') + ".png", 'L'); break;
    case 3: tar.add(name, png.substr(0, 600)).add(name, "0"); break;
    default: tar.raw(name, png.substr(0, chance.below(2000)), '0', std::string(155, '/')); break;
  }
  if (chance.below(2) == 0) tar.add("a.png", fixture("images/bits.png")).add("a.cls", "0");
  return chance.below(4) == 0 ? tar.without_end() : tar.text();
}

std::string pax_lie(const Original&, Chance& chance) {
  const std::string records[] = {"0 path=a.png\n", "99999999999999999999 path=a.png\n", "-5 path=a.png\n",
                                 "17 path=a.png\n", "13 path=a.pn", "30 size=9223372036854775807\n",
                                 "31 size=18446744073709551616\n", "11 size=-1\n", "10 size=\n", "14 size=1e999\n",
                                 "22 GNU.sparse.major=1\n", "20 GNU.sparse.size=9\n", "7 path=\n", "5 ==\n", "3 \n",
                                 "24 hdrcharset=BINARY\n\n", fmt::format("{:1>2000000} path=a\n", "")};
  std::string text;
  for (uint64_t i = 0, count = 1 + chance.below(3); i < count; ++i) text += chance.of(records);
  TarText tar(TarText::Kind::kPax);
  tar.raw("PaxHeaders/x", text, chance.below(4) == 0 ? 'g' : 'x');
  return tar.add("a.png", fixture("images/bits.png")).add("a.cls", "0").text();
}

std::string label_lie(const Original&, Chance& chance) {
  const std::string labels[] = {"-1", "1e3", "", " ", "0x10", "999999", "1000000", "99999999999999999999", "0 0",
                                std::string(3, '\0'), std::string(2'000'000, '9'), "\xff\xfe"};
  const std::string objects[] = {R"({"label": -1})", R"({"label": 1e400})", R"({"label": 2.5})", R"({"label": "0"})",
                                 R"({"label": 18446744073709551615})", R"([0])", "{", std::string(200'000, '['),
                                 R"({"label": 0, "label": 1})", R"({"label": 999999})", "null"};
  TarText tar;
  tar.add("a.png", fixture("images/bits.png"));
  if (chance.below(2) == 0)
    tar.add("a.cls", chance.of(labels));
  else
    tar.add("a.json", chance.of(objects));
  if (chance.below(3) == 0) tar.add("a.txt", chance.of(labels)).add("a.cls", "0");
  return tar.text();
}

}  // namespace

Format tar_files() {
  Format format{".tar", {}, {}};
  for (const auto& [name, kind] : {std::pair("ustar", TarText::Kind::kUstar), std::pair("gnu", TarText::Kind::kGnu),
                                   std::pair("pax", TarText::Kind::kPax)}) {
    TarText tar(kind);
    tar.raw("d/", "", '5').add("d/a.png", fixture("images/bits.png")).add("d/a.cls", "1");
    const std::string long_name = fmt::format("{:n>60}/{:m>80}", "", "");
    tar.add(long_name + ".jpg", fixture("images/photo.jpg")).add(long_name + ".json", R"({"label": 3})");
    tar.add("b.webp", fixture("images/lossy.webp")).add("b.txt", "0");
    format.originals.push_back({name, tar.text()});
  }
  format.kinds = common_kinds(format.originals);
  format.kinds.push_back({"headers", true, header_lie});
  format.kinds.push_back({"names and links", true, name_lie});
  format.kinds.push_back({"pax records", true, pax_lie});
  format.kinds.push_back({"labels", true, label_lie});
  return format;
}

}  // namespace varscale::hostile
