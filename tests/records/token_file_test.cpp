#include "records/token_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <functional>
#include <numeric>

#include "support.hpp"

namespace varscale::records {
namespace {

using base::UserError;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// 5 training images x 2 crops + 3 validation images, 5 tokens each: odd sizes on purpose.
TokenFileInfo info() {
  TokenFileInfo info;
  info.train_images = 5, info.validation_images = 3, info.crops = 2, info.classes = 4;
  info.class_names = {"cat", "dog", "Käfer", ""};
  info.vocabulary = 9;
  info.scales = {1, 2};
  info.image_side = 32;
  info.tokenizer_fingerprint = "ab12";
  info.preprocessing = "resize 36, random crop 32, [-1, 1]";
  info.source_fingerprint = "cd34";
  info.tokenizer_path = "results/tokenizer";
  return info;
}

QuantizerWeights quantizer(int64_t phis = 2) {
  QuantizerWeights weights;
  weights.vocabulary = 9, weights.code_width = 3, weights.phis = phis, weights.phi_ratio = 0.5;
  const auto p = static_cast<size_t>(phis);
  weights.embedding.resize(27);
  weights.phi_weight.resize(p * 81);
  weights.phi_bias.resize(p * 3);
  float value = 0;
  for (auto* part : {&weights.embedding, &weights.phi_weight, &weights.phi_bias})
    for (float& x : *part) x = value += 0.125f;
  return weights;
}

std::vector<uint16_t> tokens_of(int64_t row) {
  std::vector<uint16_t> tokens_L(5);
  for (size_t l = 0; l < 5; ++l)
    tokens_L[l] = static_cast<uint16_t>((row * 5 + static_cast<int64_t>(l)) % 9);
  return tokens_L;
}

void write_rows(TokenFileWriter& writer, const std::vector<int64_t>& rows) {
  for (const int64_t row : rows)
    writer.write_row(row, tokens_of(row).data(), static_cast<int32_t>(row % 4), 100 + row);
}

std::vector<int64_t> all_rows() {
  std::vector<int64_t> rows(13);
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

void write_example(const std::filesystem::path& path, const TokenFileInfo& the_info = info(),
                   const QuantizerWeights& weights = quantizer()) {
  TokenFileWriter writer(path, the_info, weights);
  write_rows(writer, all_rows());
  writer.commit();
}

TEST(TokenFile, ReadsBackWhatWasWrittenInAnyOrder) {
  const TemporaryFolder folder;
  const auto path = folder / "tokens.h5";
  {
    TokenFileWriter writer(path, info(), quantizer());
    write_rows(writer, {12, 3, 0, 7, 1, 11, 2, 4, 10, 9, 8, 6, 5});
    EXPECT_FALSE(std::filesystem::exists(path)) << "incomplete, but already in its place";
    writer.commit();
  }
  EXPECT_EQ(folder.entries(), 1);
  const TokenFile file(path);
  EXPECT_EQ(file.info().rows(), 13);
  EXPECT_EQ(file.info().tokens_per_image(), 5);
  EXPECT_EQ(file.info().scales, info().scales);
  EXPECT_EQ(file.info().class_names, info().class_names);
  EXPECT_EQ(file.info().preprocessing, info().preprocessing);
  EXPECT_EQ(file.info().tokenizer_path, info().tokenizer_path);
  EXPECT_EQ(file.info().image_side, 32);
  for (int64_t row = 0; row < 13; ++row) {
    EXPECT_EQ(std::vector<uint16_t>(file.row(row), file.row(row) + 5), tokens_of(row));
    EXPECT_EQ(file.label(row), row % 4);
    EXPECT_EQ(file.source_id(row), 100 + row);
  }
  EXPECT_EQ(file.train_row(4, 1), 9);
  EXPECT_EQ(file.validation_row(2), 12);
  EXPECT_EQ(file.quantizer().embedding, quantizer().embedding);
  EXPECT_EQ(file.quantizer().phi_weight, quantizer().phi_weight);
  EXPECT_EQ(file.quantizer().phi_bias, quantizer().phi_bias);
  EXPECT_EQ(file.quantizer().phi_ratio, 0.5);
  EXPECT_NO_THROW(file.verify());
  EXPECT_THROW(file.row(13), base::InvariantError);
  EXPECT_THROW(file.label(-1), base::InvariantError);
  EXPECT_THROW(file.train_row(5, 0), base::InvariantError);
  EXPECT_THROW(file.validation_row(3), base::InvariantError);
}

TEST(TokenFile, WorksWithoutPhiAndClassNames) {
  const TemporaryFolder folder;
  TokenFileInfo plain = info();
  plain.class_names.clear();
  write_example(folder / "tokens.h5", plain, quantizer(0));
  const TokenFile file(folder / "tokens.h5");
  EXPECT_EQ(file.quantizer().phis, 0);
  EXPECT_TRUE(file.info().class_names.empty());
  EXPECT_NO_THROW(file.verify());
}

TEST(TokenFile, FingerprintDependsOnTheNumbersAndNotOnNamesOrOrder) {
  const TemporaryFolder folder;
  write_example(folder / "a.h5");
  const std::string a = TokenFile(folder / "a.h5").fingerprint();
  EXPECT_EQ(a.size(), 64u);

  TokenFileInfo renamed = info();
  renamed.class_names = {"0", "1", "2", "3"};
  renamed.tokenizer_path = "elsewhere";
  {
    TokenFileWriter writer(folder / "same.h5", renamed, quantizer());
    std::vector<int64_t> rows = all_rows();
    std::reverse(rows.begin(), rows.end());
    write_rows(writer, rows);
    writer.commit();
  }
  EXPECT_EQ(TokenFile(folder / "same.h5").fingerprint(), a);

  const auto expect_other = [&](const char* what, const TokenFileInfo& other,
                                const QuantizerWeights& weights) {
    write_example(folder / "b.h5", other, weights);
    EXPECT_NE(TokenFile(folder / "b.h5").fingerprint(), a) << what;
  };
  TokenFileInfo other = info();
  other.tokenizer_fingerprint = "ab13";
  expect_other("tokenizer", other, quantizer());
  other = info(), other.preprocessing += ", flipped";
  expect_other("preprocessing", other, quantizer());
  other = info(), other.crops = 1, other.train_images = 10;
  expect_other("crops", other, quantizer());
  other = info(), other.train_images = 4, other.validation_images = 5;
  expect_other("split", other, quantizer());
  QuantizerWeights weights = quantizer();
  weights.embedding[3] += 1;
  expect_other("codebook", info(), weights);
  weights = quantizer(), weights.phi_ratio = 0.25;
  expect_other("phi ratio", info(), weights);
  const auto write_changed = [&](int32_t label, uint16_t token) {
    TokenFileWriter writer(folder / "b.h5", info(), quantizer());
    write_rows(writer, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
    std::vector<uint16_t> tokens_L = tokens_of(12);
    tokens_L[4] = token;
    writer.write_row(12, tokens_L.data(), label, 112);
    writer.commit();
    return TokenFile(folder / "b.h5").fingerprint();
  };
  EXPECT_EQ(write_changed(0, tokens_of(12)[4]), a);
  EXPECT_NE(write_changed(1, tokens_of(12)[4]), a);
  EXPECT_NE(write_changed(0, 0), a);
}

TEST(TokenFile, SaysHowItsTrainingImagesWereCroppedUnderTheFingerprintOfFilesThatDoNot) {
  const TemporaryFolder folder;
  write_example(folder / "older.h5");
  const TokenFile older(folder / "older.h5");
  EXPECT_FALSE(older.info().train_source);
  for (const uint64_t seed : {uint64_t{7}, ~uint64_t{0}}) {
    TokenFileInfo with = info();
    with.train_source = {.crop_seed = seed, .keep_exact = false, .fingerprint = "ef56"};
    write_example(folder / "t.h5", with);
    const TokenFile file(folder / "t.h5");
    EXPECT_EQ(file.info().train_source, with.train_source);
    EXPECT_EQ(file.fingerprint(), older.fingerprint());
    file.verify();
  }
}

TEST(TokenFile, H5pyReadsTheDocumentedLayout) {
  const TemporaryFolder folder;
  write_example(folder / "tokens.h5");
  EXPECT_EQ(run_python(R"(
import sys, hashlib, h5py, numpy as np
with h5py.File(sys.argv[1]) as file:
    tokens = file["tokens"]
    assert tokens.dtype == "<u2" and tokens.shape == (13, 5) and tokens.chunks is None
    assert (tokens[:] == np.arange(65).reshape(13, 5) % 9).all()
    assert (file["labels"][:] == np.arange(13) % 4).all() and file["labels"].dtype == "<i4"
    assert file["split"][:].tolist() == [0] * 10 + [1] * 3
    assert (file["source_id"][:] == 100 + np.arange(13)).all()
    q = file["quantizer"]
    assert q["embedding"].shape == (9, 3) and q["phi_weight"].shape == (2, 3, 3, 3, 3) and q["phi_bias"].shape == (2, 3)
    a = dict(file.attrs)
    assert a["scales"].tolist() == [1, 2] and a["vocabulary"] == 9 and a["crops"] == 2
    assert file["class_names"].asstr()[:].tolist() == ["cat", "dog", "Käfer", ""]
    identity = (f"varscale tokens 1\ntrain_images 5\nvalidation_images 3\ncrops 2\nclasses 4\nvocabulary 9\nscales 1,2\n"
        f"image_side 32\ncode_width 3\nphis 2\nphi_ratio 0.5\ntokenizer_fingerprint ab12\n"
        f"preprocessing {a['preprocessing']}\nsource_fingerprint cd34\n").encode()
    parts = [q["embedding"], q["phi_weight"], q["phi_bias"], tokens, file["labels"], file["split"], file["source_id"]]
    found = hashlib.sha256(identity + b"".join(part[:].tobytes() for part in parts)).hexdigest()
    assert found == a["fingerprint"], (found, a["fingerprint"])
print("read")
)",
                       folder / "tokens.h5"),
            "read\n");
}

TEST(TokenFileWriter, LeavesNothingWithoutCommit) {
  const TemporaryFolder folder;
  {
    TokenFileWriter writer(folder / "tokens.h5", info(), quantizer());
    write_rows(writer, {0, 1, 2});
    EXPECT_THROW(writer.commit(), base::InvariantError);
  }
  EXPECT_EQ(folder.entries(), 0u);
}

TEST(TokenFileWriter, RefusesWhatDoesNotBelong) {
  const TemporaryFolder folder;
  TokenFileWriter writer(folder / "tokens.h5", info(), quantizer());
  write_rows(writer, {3});
  const auto tokens_L = tokens_of(4);
  EXPECT_THAT([&] { write_rows(writer, {3}); },
              ThrowsMessage<UserError>(HasSubstr("tokens.h5: row 3 is written twice")));
  EXPECT_THAT([&] { writer.write_row(4, tokens_L.data(), 4, 77); },
              ThrowsMessage<UserError>(HasSubstr("row 4 (image 77) has label 4; expected 0 to 3")));
  EXPECT_THROW(writer.write_row(13, tokens_L.data(), 0, 0), base::InvariantError);
  const std::vector<uint16_t> beyond = {0, 0, 0, 0, 9};
  EXPECT_THROW(writer.write_row(4, beyond.data(), 0, 0), base::InvariantError);

  const auto expect_refused = [&](const TokenFileInfo& wrong, const char* words) {
    EXPECT_THAT([&] { TokenFileWriter(folder / "b.h5", wrong, quantizer()); },
                ThrowsMessage<UserError>(HasSubstr(words)));
  };
  TokenFileInfo wrong = info();
  wrong.train_images = wrong.validation_images = 0;
  expect_refused(wrong, "the number of rows is 0");
  wrong = info(), wrong.scales = {2, 2};
  expect_refused(wrong, "scales 2,2: 2 follows 2");
  wrong = info(), wrong.vocabulary = 8;
  expect_refused(wrong, "the quantizer has 9 codes, but the vocabulary is 8");
  wrong = info(), wrong.vocabulary = 70000;
  expect_refused(wrong, "expected 2 to 65536");
  wrong = info(), wrong.class_names.pop_back();
  expect_refused(wrong, "the number of class names is 3; expected 4 to 4");
}

// --- malformed files -----------------------------------------------------------------------------

std::function<void(const std::filesystem::path&)> with_attribute(const char* name, int64_t value) {
  return [=](const std::filesystem::path& path) {
    edit(path, [&](hid_t file) {
      const hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
      H5Awrite(attribute, H5T_NATIVE_INT64, &value);
      H5Aclose(attribute);
    });
  };
}

std::function<void(const std::filesystem::path&)> without(const char* name) {
  return [=](const std::filesystem::path& path) {
    edit(path, [&](hid_t file) { H5Ldelete(file, name, H5P_DEFAULT); });
  };
}

std::function<void(const std::filesystem::path&)> with_dataset(const char* name, hid_t type,
                                                               std::vector<hsize_t> shape,
                                                               bool chunked = false) {
  return [=](const std::filesystem::path& path) {
    edit(path, [&](hid_t file) {
      H5Ldelete(file, name, H5P_DEFAULT);
      const hid_t space = H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
      const hid_t layout = H5Pcreate(H5P_DATASET_CREATE);
      H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY);
      if (chunked) H5Pset_chunk(layout, static_cast<int>(shape.size()), shape.data());
      H5Dclose(H5Dcreate2(file, name, type, space, H5P_DEFAULT, layout, H5P_DEFAULT));
      H5Pclose(layout);
      H5Sclose(space);
    });
  };
}

std::vector<Damage> damages() {
  return {
      {"Absent", [](const auto& path) { std::filesystem::remove(path); }, "no such file"},
      {"Empty", [](const auto& path) { std::filesystem::resize_file(path, 0); },
       "not an HDF5 file"},
      {"AnotherFormat", [](const auto& path) { base::write_file_atomic(path, "PK\3\4 a zip"); },
       "not an HDF5 file"},
      {"Truncated",
       [](const auto& path) {
         std::filesystem::resize_file(path, std::filesystem::file_size(path) - 64);
       },
       "truncated file"},
      {"ARunFile", [](const auto& path) { write_run(path, RunTables{}); }, "is not a token file"},
      {"AnotherSchemaVersion", with_attribute("schema_version", 3), "schema_version is 3"},
      {"NoCrops",
       [](const auto& path) { edit(path, [](hid_t file) { H5Adelete(file, "crops"); }); },
       "attribute crops is missing"},
      {"ATextForANumber",
       [](const auto& path) {
         edit(path, [](hid_t file) {
           H5Adelete(file, "crops");
           const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
           const hid_t attribute = H5Acreate2(file, "crops", type, space, H5P_DEFAULT, H5P_DEFAULT);
           H5Awrite(attribute, type, "2");
           H5Aclose(attribute);
           H5Sclose(space);
           H5Tclose(type);
         });
       },
       "attribute crops is not an integer"},
      {"NegativeImages", with_attribute("train_images", -1), "train_images is -1"},
      {"MoreImagesThanRows", with_attribute("train_images", 6),
       "tokens has shape [13, 5]; expected [15, 5]"},
      {"AnotherVocabulary", with_attribute("vocabulary", 10),
       "the quantizer has 9 codes, but the vocabulary is 10"},
      {"NoScales",
       [](const auto& path) { edit(path, [](hid_t file) { H5Adelete(file, "scales"); }); },
       "attribute scales is missing"},
      {"NoTokens", without("tokens"), "tokens is missing"},
      {"NoLabels", without("labels"), "labels is missing"},
      {"NoQuantizer", without("quantizer"), "group /quantizer is missing"},
      {"NoCodebook", without("quantizer/embedding"), "/quantizer/embedding is missing"},
      {"NoPhiWeight", without("quantizer/phi_weight"), "phi_weight is missing"},
      {"TokensOfAnotherType", with_dataset("tokens", H5T_STD_I64LE, {13, 5}),
       "tokens does not hold unsigned 16-bit integers"},
      {"TokensOfAnotherShape", with_dataset("tokens", H5T_STD_U16LE, {13, 4}),
       "tokens has shape [13, 4]; expected [13, 5]"},
      {"TokensInChunks", with_dataset("tokens", H5T_STD_U16LE, {13, 5}, true),
       "tokens is not stored contiguously"},
  };
}

class DamagedTokenFile : public testing::TestWithParam<Damage> {};

TEST_P(DamagedTokenFile, IsNamedInOneSentence) {
  const TemporaryFolder folder;
  const auto path = folder / "tokens.h5";
  write_example(path);
  GetParam().apply(path);
  testing::internal::CaptureStderr();
  EXPECT_THAT(
      [&] { TokenFile file(path); },
      ThrowsMessage<UserError>(AllOf(HasSubstr(path.string()), HasSubstr(GetParam().sentence))));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << "HDF5 printed its error stack";
}

INSTANTIATE_TEST_SUITE_P(All, DamagedTokenFile, testing::ValuesIn(damages()),
                         [](const auto& info) { return info.param.name; });

TEST(TokenFile, VerifyNamesATokenBeyondTheVocabularyAndAnyOtherChange) {
  const TemporaryFolder folder;
  const auto path = folder / "tokens.h5";
  const auto change = [&](const char* name, hid_t type, auto value, hsize_t at_row) {
    write_example(path);
    edit(path, [&](hid_t file) {
      const hid_t set = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(set);
      const hsize_t at[2] = {at_row, 2};
      H5Sselect_elements(space, H5S_SELECT_SET, 1, at);
      const hid_t one = H5Screate(H5S_SCALAR);
      H5Dwrite(set, type, one, space, H5P_DEFAULT, &value);
      H5Sclose(one);
      H5Sclose(space);
      H5Dclose(set);
    });
    return TokenFile(path);
  };
  EXPECT_THAT([&] { change("tokens", H5T_NATIVE_UINT16, uint16_t{9}, 7).verify(); },
              ThrowsMessage<UserError>(HasSubstr("token 2 of row 7 is 9; expected less than")));
  EXPECT_THAT([&] { change("labels", H5T_NATIVE_INT32, int32_t{4}, 6).verify(); },
              ThrowsMessage<UserError>(HasSubstr("the label of row 6 is 4; expected 0 to 3")));
  const auto changed = ThrowsMessage<UserError>(HasSubstr("rows 0 to 12 do not fit their checksum; the file is damaged"));
  EXPECT_THAT([&] { change("tokens", H5T_NATIVE_UINT16, uint16_t{8}, 7).verify(); }, changed);
  EXPECT_THAT([&] { change("labels", H5T_NATIVE_INT32, int32_t{3}, 6).verify(); }, changed);
  EXPECT_THAT([&] { change("split", H5T_NATIVE_UINT8, uint8_t{1}, 0).verify(); }, changed);
  EXPECT_THAT([&] { change("source_id", H5T_NATIVE_INT64, int64_t{5}, 12).verify(); }, changed);
}

}  // namespace
}  // namespace varscale::records
