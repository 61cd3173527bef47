#include "records/feature_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <string>
#include <vector>

#include "support.hpp"

namespace varscale::records {
namespace {

using base::message_of;
using base::UserError;
using testing::HasSubstr;

// 7 images in groups of 3; 5, 2 and 4 numbers each.
FeatureFileInfo info_of_seven() {
  FeatureFileInfo info;
  info.images = 7, info.features = 5, info.spatial = 2, info.classes = 4, info.group = 3;
  info.network = "inception-2015-12-05", info.network_identity = "ab12";
  info.images_path = "bilder/Käfer", info.images_fingerprint = "cd34";
  info.width = 64, info.height = 48;
  return info;
}

std::vector<float> numbers(int64_t begin, int64_t count, int64_t width, float first) {
  std::vector<float> values(static_cast<size_t>(count * width));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = first + 0.25f * static_cast<float>(begin * width + static_cast<int64_t>(i));
  return values;
}

void append_rows(FeatureFileWriter& writer, const FeatureFileInfo& info, int64_t begin, int64_t count) {
  const auto features = numbers(begin, count, info.features, 1), spatial = numbers(begin, count, info.spatial, 100),
             logits = numbers(begin, count, info.classes, -50);
  writer.append({.count = count, .features = features.data(), .spatial = spatial.data(), .logits = logits.data()});
}

void write_seven(const std::filesystem::path& path, const FeatureFileInfo& info = info_of_seven()) {
  FeatureFileWriter writer(path, info);
  for (const auto& [begin, count] : std::vector<std::pair<int64_t, int64_t>>{{0, 3}, {3, 3}, {6, 1}})
    append_rows(writer, info, begin, count);
  writer.commit();
}

TEST(FeatureFile, ReadsBackWhatWasWritten) {
  const TemporaryFolder folder;
  write_seven(folder / "a.h5");
  const FeatureFile file(folder / "a.h5");
  const FeatureFileInfo &got = file.info(), want = info_of_seven();
  EXPECT_EQ(got.images, 7);
  EXPECT_EQ(got.features, 5);
  EXPECT_EQ(got.spatial, 2);
  EXPECT_EQ(got.classes, 4);
  EXPECT_EQ(got.group, 3);
  EXPECT_EQ(got.network, want.network);
  EXPECT_EQ(got.network_identity, want.network_identity);
  EXPECT_FALSE(got.random_weights);
  EXPECT_EQ(got.images_path, want.images_path);
  EXPECT_EQ(got.images_fingerprint, want.images_fingerprint);
  EXPECT_EQ(got.width, 64);
  EXPECT_EQ(got.height, 48);
  std::vector<float> features(3 * 5), spatial(7 * 2), logits(1 * 4);
  file.read(FeaturePart::kFeatures, 2, 3, features.data());
  file.read(FeaturePart::kSpatial, 0, 7, spatial.data());
  file.read(FeaturePart::kLogits, 6, 1, logits.data());
  EXPECT_EQ(features, numbers(2, 3, 5, 1));
  EXPECT_EQ(spatial, numbers(0, 7, 2, 100));
  EXPECT_EQ(logits, numbers(6, 1, 4, -50));
  EXPECT_THROW(file.read(FeaturePart::kFeatures, 6, 2, features.data()), base::InvariantError);

  write_seven(folder / "b.h5");
  EXPECT_EQ(base::read_file(folder / "a.h5"), base::read_file(folder / "b.h5"));
}

TEST(FeatureFile, HasNoArraysOfWhatTheNetworkLacks) {
  const TemporaryFolder folder;
  FeatureFileInfo info = info_of_seven();
  info.spatial = info.classes = 0, info.random_weights = true;
  write_seven(folder / "a.h5", info);
  const FeatureFile file(folder / "a.h5");
  EXPECT_EQ(file.info().spatial, 0);
  EXPECT_EQ(file.info().classes, 0);
  EXPECT_TRUE(file.info().random_weights);
  float number = 0;
  EXPECT_THROW(file.read(FeaturePart::kLogits, 0, 1, &number), base::InvariantError);
}

TEST(FeatureFile, PythonReadsIt) {
  const TemporaryFolder folder;
  write_seven(folder / "a.h5");
  EXPECT_EQ(run_python(R"(
import sys, h5py
with h5py.File(sys.argv[1]) as file:
    print(file["features"].shape, file["features"].dtype, file["features"][6, 4], file["spatial"][6, 1])
    print(file["logits"][0, 0], file.attrs["network"], file.attrs["images"], file.attrs["images_path"])
)",
                       folder / "a.h5"),
            "(7, 5) float32 9.5 103.25\n-50.0 inception-2015-12-05 7 bilder/Käfer\n");
}

TEST(FeatureFile, IsAbsentUntilAllRowsAreThere) {
  const TemporaryFolder folder;
  {
    FeatureFileWriter writer(folder / "a.h5", info_of_seven());
    append_rows(writer, info_of_seven(), 0, 3);
    EXPECT_FALSE(std::filesystem::exists(folder / "a.h5"));
    EXPECT_THROW(writer.commit(), base::InvariantError);
    EXPECT_THROW(append_rows(writer, info_of_seven(), 0, 5), base::InvariantError);
  }
  EXPECT_EQ(folder.entries(), 0);
}

TEST(FeatureFile, RefusesDamagedAndForeignFiles) {
  const auto remove = [](const char* name) {
    return [name](const auto& path) { edit(path, [&](hid_t file) { H5Ldelete(file, name, H5P_DEFAULT); }); };
  };
  const auto set_integer = [](const char* name, int64_t value) {
    return [=](const auto& path) {
      edit(path, [&](hid_t file) {
        const hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
        EXPECT_GE(H5Awrite(attribute, H5T_NATIVE_INT64, &value), 0);
        H5Aclose(attribute);
      });
    };
  };
  const Damage damages[] = {
      {"gone", [](const auto& path) { std::filesystem::remove(path); }, "no such file; expected an HDF5 file"},
      {"text", [](const auto& path) { std::ofstream(path) << "mu sigma"; }, "is not an HDF5 file"},
      {"cut", [](const auto& path) { std::filesystem::resize_file(path, std::filesystem::file_size(path) - 40); },
       "it is damaged, or another process is writing it"},
      {"foreign", [](const auto& path) { edit(path, [](hid_t file) { H5Adelete(file, "format"); }); },
       "is not a feature file"},
      {"schema", set_integer("schema_version", 2), "schema_version is 2; this program reads 1"},
      {"no features", remove("features"), "/features is missing"},
      {"no group", set_integer("group", 0), "attribute group is 0, expected 1 to"},
      {"more images", set_integer("images", 8), "/features has shape [7, 5]; expected a row for each of its 8 images"},
      {"doubles",
       [&](const auto& path) {
         remove("spatial")(path);
         edit(path, [](hid_t file) {
           const hsize_t shape[] = {7, 2};
           const hid_t space = H5Screate_simple(2, shape, nullptr);
           const hid_t set = H5Dcreate2(file, "spatial", H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
           H5Dclose(set), H5Sclose(space);
         });
       },
       "/spatial does not hold 32-bit floats"},
      {"not in full",
       [&](const auto& path) {
         remove("logits")(path);
         edit(path, [](hid_t file) {
           const hsize_t shape[] = {7, 1 << 30};
           const hid_t space = H5Screate_simple(2, shape, nullptr);
           const hid_t set = H5Dcreate2(file, "logits", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
           H5Dclose(set), H5Sclose(space);
         });
       },
       "/logits is not stored in full"},
  };
  for (const Damage& damage : damages) {
    const TemporaryFolder folder;
    const auto path = folder / "a.h5";
    write_seven(path);
    damage.apply(path);
    const std::string sentence = message_of<UserError>([&] { FeatureFile{path}; });
    EXPECT_THAT(sentence, testing::StartsWith(path.string())) << damage.name;
    EXPECT_THAT(sentence, HasSubstr(damage.sentence)) << damage.name;
  }
}

TEST(FeatureFile, NoticesAChangedNumberAsItIsRead) {
  const TemporaryFolder folder;
  write_seven(folder / "a.h5");
  std::string bytes = base::read_file(folder / "a.h5");
  const std::vector<float> row = numbers(3, 1, 5, 1);
  const size_t at = bytes.find(std::string(reinterpret_cast<const char*>(row.data()), 20));
  ASSERT_NE(at, std::string::npos);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  folder.write("a.h5", bytes);
  const FeatureFile file(folder / "a.h5");
  std::vector<float> features(7 * 5);
  file.read(FeaturePart::kFeatures, 0, 3, features.data());
  EXPECT_THAT(message_of<UserError>([&] { file.read(FeaturePart::kFeatures, 0, 7, features.data()); }),
              HasSubstr("a.h5: rows 0 to 6 of /features cannot be read"));
}

}  // namespace
}  // namespace varscale::records
