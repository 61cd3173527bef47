// The lister of tar archives: what it accepts must lie inside the archive.
#include <fmt/format.h>

#include "base/error.hpp"
#include "base/file.hpp"
#include "data/image_set.hpp"
#include "tests/data/tar_writer.hpp"
#include "tests/fuzz/driver.hpp"

namespace varscale {
namespace {

std::string read(const fuzz::Scratch& scratch, const std::string& input) {
  const data::ImageSet set = data::ImageSet::open(scratch.write("input.tar", input));
  VARSCALE_CHECK(set.size() > 0, "a set without images");
  for (int64_t i = 0; i < set.size(); ++i) {
    const std::string bytes = set.read(i);
    VARSCALE_CHECK(static_cast<int64_t>(bytes.size()) == set.entry(i).bytes, "bytes of image {}", i);
    VARSCALE_CHECK(bytes.empty() || input.find(bytes) != std::string::npos, "image {} is not in the archive", i);
    VARSCALE_CHECK(set.label(i) >= 0 && set.label(i) < static_cast<int64_t>(set.class_names().size()), "label of {}",
                   i);
  }
  return fmt::format("{} images", std::min<int64_t>(set.size(), 9));
}

std::vector<std::string> seeds() {
  using data::TarText;
  std::vector<std::string> texts;
  for (const auto kind : {TarText::Kind::kUstar, TarText::Kind::kGnu, TarText::Kind::kPax}) {
    TarText tar(kind);
    tar.raw("d/", "", '5').add("d/a.png", std::string(600, 'p')).add("d/a.cls", "3").add("b.jpg", "x")
        .add("b.txt", "1");
    const std::string long_name = fmt::format("{:n>60}/{:m>70}", "", "");
    tar.add(long_name + ".webp", "w").add(long_name + ".json", R"({"label": 2})");
    texts.push_back(tar.text());
  }
  return texts;
}

}  // namespace
}  // namespace varscale

int main(int argc, char** argv) {
  const varscale::fuzz::Scratch scratch;
  return varscale::fuzz::run(argc, argv,
                             {.name = "tar",
                              .dictionary = {"ustar", "ustar  ", ".png", ".cls", ".json", "././@LongLink",
                                             "19 path=d/a.png\n",
                                             "12 size=99\n", "22 GNU.sparse.size=1\n", "00000000000", "77777777777",
                                             std::string("\x80\0\0\0\0\0\0\0\0\0\0\1", 12), std::string(512, '\0')},
                              .seeds = varscale::seeds(),
                              .read = [&](const std::string& input) { return varscale::read(scratch, input); }});
}
