#include "image_side.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.hpp"
#include "base/file.hpp"

namespace varscale::apps {

namespace fs = std::filesystem;
using base::UserError;
using evaluate::ImageFolder;
using evaluate::Inception;
using evaluate::NetworkFacts;
using evaluate::NpzSet;

namespace {

void take_images(ImageSide& side, auto images) {
  side.rows = {images->size(), [images](int64_t begin, int64_t count) { return images->batch(begin, count); }};
  side.width = images->width(), side.height = images->height();
}

}  // namespace

ImageSide open_image_side(const std::string& option, const fs::path& path) {
  ImageSide side;
  side.option = option, side.path = path;
  if (!fs::is_regular_file(path)) {
    side.folder = std::make_shared<const ImageFolder>(ImageFolder::open(path));
    take_images(side, side.folder);
  } else if (path.extension() == ".h5") {
    side.stored = std::make_shared<const records::FeatureFile>(path);
    side.width = side.stored->info().width, side.height = side.stored->info().height;
  } else {
    side.npz = std::make_shared<const NpzSet>(path);
    take_images(side, side.npz);
  }
  if (side.size() < evaluate::fewest_images() && (side.size() > 0 || !side.has_statistics()))
    throw UserError("{} {}: holds {} images, expected at least {}", option, path.string(), side.size(),
                    evaluate::fewest_images());
  return side;
}

std::string ImageSide::fingerprint() const {
  if (folder) return folder->fingerprint();
  return stored ? stored->info().images_fingerprint : base::sha256_of_file(path);
}

void Reference::take_statistics(const ImageSide& side, int64_t dimension, int64_t spatial_dimension) {
  using evaluate::NpzStatistics;
  if (!side.has_statistics()) return;
  statistics = side.npz->gaussian(NpzStatistics::kPool, dimension);
  if (side.npz->features(NpzStatistics::kSpatial))
    spatial = side.npz->gaussian(NpzStatistics::kSpatial, spatial_dimension);
}

evaluate::Comparison Reference::compare(const NetworkFacts& network, const evaluate::ImageFeatures& samples) const {
  if (!statistics) return evaluate::compare(network, *features, samples);
  return evaluate::compare(network, *statistics, features ? &*features : nullptr, samples, spatial ? &*spatial : nullptr);
}

std::string words(const NetworkFacts& network) {
  return fmt::format("{} ({})", network.name, network.identity.substr(0, 16));
}

NetworkFacts network_of_sides(const FeatureOption& option, const Inception* loaded,
                              const std::vector<const ImageSide*>& sides) {
  const auto first_stored = std::ranges::find_if(sides, [](const ImageSide* side) { return side->stored != nullptr; });
  VARSCALE_CHECK(loaded != nullptr || first_stored != sides.end(), "sets without images and features");
  NetworkFacts facts = loaded != nullptr ? loaded->facts() : evaluate::network_of(*(*first_stored)->stored);
  if (loaded != nullptr && option.name.empty())
    for (const ImageSide* side : sides)
      if (side->stored && side->stored->info().network_identity == facts.identity)
        facts.name = side->stored->info().network;
  for (const ImageSide* side : sides) {
    if (!side->stored) continue;
    const NetworkFacts theirs = evaluate::network_of(*side->stored);
    if (theirs.identity == facts.identity && theirs.name == facts.name) continue;
    throw UserError("{} {}: holds features of {}, {} gives those of {}; expected one network under one name",
                    side->option, side->path.string(), words(theirs),
                    loaded != nullptr ? fmt::format("{}features {}", option.prefix, option.features)
                                      : (*first_stored)->path.string(),
                    words(facts));
  }
  return facts;
}

}  // namespace varscale::apps
