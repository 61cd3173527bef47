#include "generate/outputs.hpp"

#include "archives/npy.hpp"
#include "archives/zip_file.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/random.hpp"
#include "data/image_file.hpp"

namespace varscale::generate {

void write_npz(const std::filesystem::path& path, const ImageSupply& images, uint64_t seed) {
  const auto count = static_cast<int64_t>(images.labels.size());
  VARSCALE_CHECK(count >= 1, "an archive of no images");
  const base::Permutation order(static_cast<uint64_t>(count), seed, "npz_order");
  const auto at_row = [&](int64_t row) { return static_cast<int64_t>(order(static_cast<uint64_t>(row))); };
  archives::ZipWriter zip(path);
  const auto begin = [&](const std::string& name, const archives::NpyHead& array) {
    const std::string head = archives::write_npy_head(array);
    zip.begin(name, {.align = 64});
    zip.write(head.data(), head.size());
  };
  begin("arr_0.npy", {.dtype = "|u1", .shape = {count, images.side, images.side, 3}});
  std::vector<uint8_t> pixels(static_cast<size_t>(images.side * images.side * 3));
  for (int64_t row = 0; row < count; ++row) {
    images.read(at_row(row), pixels.data());
    zip.write(pixels.data(), pixels.size());
  }
  zip.end();
  begin("arr_1.npy", {.dtype = "<i8", .shape = {count}});
  std::vector<int64_t> labels;
  for (int64_t row = 0; row < count; ++row) labels.push_back(images.labels[static_cast<size_t>(at_row(row))]);
  zip.write(labels.data(), labels.size() * sizeof labels[0]);
  zip.end();
  if (images.tokens > 0) {
    begin("arr_2.npy", {.dtype = "<u2", .shape = {count, images.tokens}});
    std::vector<uint16_t> tokens_L(static_cast<size_t>(images.tokens));
    for (int64_t row = 0; row < count; ++row) {
      images.read_tokens(at_row(row), tokens_L.data());
      zip.write(tokens_L.data(), tokens_L.size() * sizeof tokens_L[0]);
    }
    zip.end();
  }
  zip.commit();
}

void write_image_folder(const std::filesystem::path& folder, const ImageSupply& images,
                        const std::vector<std::string>& names) {
  if (std::filesystem::exists(folder)) throw base::UserError("{}: is there already", folder.string());
  base::AtomicFolder aside(folder);
  std::vector<uint8_t> pixels(static_cast<size_t>(images.side * images.side * 3));
  for (size_t i = 0; i < names.size(); ++i) {
    images.read(static_cast<int64_t>(i), pixels.data());
    data::write_png_file(aside.temporary() / (names[i] + ".png"), pixels.data(), images.side, images.side,
                         data::Durability::kPlain);
  }
  aside.commit();
}

}  // namespace varscale::generate
