#include "archives/npy.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "base/error.hpp"
#include "tests/support/python.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::archives {
namespace {

using base::UserError;
using testing::HasSubstr;

// Each array of the list as numpy.save writes it, without its values.
TEST(Npy, WritesTheHeadsThatNumpyWrites) {
  const base::TemporaryFolder folder;
  std::string all;
  for (const NpyHead& head : {NpyHead{"|u1", {50000, 4, 4, 3}}, NpyHead{"<f8", {3}}, NpyHead{"<f4", {}},
                              NpyHead{"<i8", {0, 5}}, NpyHead{"<f4", {3, 4}, true}, NpyHead{"|b1", {1, 1, 1, 1, 1}},
                              // 64 bytes of words fill a block exactly.
                              NpyHead{"<f4", {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1}}}) {
    const std::string bytes = write_npy_head(head);
    EXPECT_EQ(bytes.size() % 64, 0u);
    all += bytes;
  }
  EXPECT_EQ(test::run_python(R"(
import io, sys, numpy as np
want = b''
for dtype, shape, order in (('|u1', (50000, 4, 4, 3), 'C'), ('<f8', (3,), 'C'), ('<f4', (), 'C'), ('<i8', (0, 5), 'C'),
                            ('<f4', (3, 4), 'F'), ('|b1', (1, 1, 1, 1, 1), 'C'),
                            ('<f4', (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1), 'C')):
    file = io.BytesIO()
    array = np.empty(shape, dtype, order)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    want += file.getvalue()
with open(sys.argv[1], 'rb') as file:
    print(file.read() == want)
)",
                             folder.write("heads", all)),
            "True\n");
}

TEST(Npy, ArchivesAreReadByNumpy) {
  const base::TemporaryFolder folder;
  std::vector<uint8_t> pixels(2 * 3 * 4);
  std::iota(pixels.begin(), pixels.end(), uint8_t{5});
  const double mu[] = {0.5, -2};
  {
    ZipWriter out(folder / "a.npz", ZipWriter::Zip64::kAlways);
    const auto add = [&](const char* name, const NpyHead& head, const void* values, size_t bytes) {
      const std::string words = write_npy_head(head);
      out.begin(name, {.align = 64});
      out.write(words.data(), words.size());
      out.write(values, bytes);
      out.end();
    };
    add("arr_0.npy", {"|u1", {2, 3, 4}}, pixels.data(), pixels.size());
    add("mu.npy", {"<f8", {2}}, mu, sizeof mu);
    out.commit();
  }
  EXPECT_EQ(test::run_python(R"(
import sys, numpy as np
file = np.load(sys.argv[1])
print(file.files, file['arr_0'].dtype, (file['arr_0'] == np.arange(5, 29).reshape(2, 3, 4)).all(), file['mu'])
)",
                             folder / "a.npz"),
            "['arr_0', 'mu'] uint8 True [ 0.5 -2. ]\n");
}

TEST(Npy, ReadsWhatNumpyWrites) {
  const base::TemporaryFolder folder;
  test::run_python(R"(
import sys, io, zipfile, numpy as np
mu, sigma = np.arange(5.0), np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
np.savez(sys.argv[1] + '/stored.npz', mu=mu, sigma=sigma, images=np.zeros((0, 4, 4, 3), np.uint8), count=np.int64(7))
np.savez_compressed(sys.argv[1] + '/deflated.npz', mu=mu, sigma=sigma)
with zipfile.ZipFile(sys.argv[1] + '/versions.npz', 'w') as out:
    for version in (2, 0), (3, 0):
        file = io.BytesIO()
        np.lib.format.write_array(file, mu, version)
        out.writestr(f'v{version[0]}.npy', file.getvalue())
)",
                   folder.path());
  for (const char* name : {"stored.npz", "deflated.npz"}) {
    const ZipFile zip(folder / name);
    const NpyHead mu = read_npy_head(zip, zip.at("mu.npy")), sigma = read_npy_head(zip, zip.at("sigma.npy"));
    EXPECT_EQ(mu.dtype, "<f8");
    EXPECT_EQ(mu.shape, std::vector<int64_t>{5});
    EXPECT_FALSE(mu.fortran_order);
    std::vector<double> values(5);
    ASSERT_EQ(mu.value_bytes(), 40u);
    zip.read(zip.at("mu.npy"), mu.bytes, values.data(), mu.value_bytes());
    EXPECT_EQ(values, (std::vector<double>{0, 1, 2, 3, 4}));
    EXPECT_EQ(sigma.dtype, "<f4");
    EXPECT_EQ(sigma.shape, (std::vector<int64_t>{2, 3}));
    EXPECT_TRUE(sigma.fortran_order);
  }
  const ZipFile stored(folder / "stored.npz"), versions(folder / "versions.npz");
  EXPECT_EQ(read_npy_head(stored, stored.at("images.npy")).shape, (std::vector<int64_t>{0, 4, 4, 3}));
  EXPECT_EQ(read_npy_head(stored, stored.at("count.npy")).values(), 1);
  for (const char* name : {"v2.npy", "v3.npy"}) {
    const NpyHead head = read_npy_head(versions, versions.at(name));
    EXPECT_EQ(head.values(), 5) << name;
    double last = 0;
    versions.read(versions.at(name), head.bytes + 32, &last, sizeof last);
    EXPECT_EQ(last, 4) << name;
  }
}

// A version 1.0 head around any words.
std::string around(const std::string& words) {
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(words.size() & 0xff);
  bytes += static_cast<char>(words.size() >> 8);
  return bytes + words;
}

TEST(Npy, TakesTheFormsThatPythonWrites) {
  const NpyHead head =
      parse_npy_head(around("{\"shape\":(3L, 4,),'descr':\"<f8\" , 'fortran_order':True}\n"), "a.npy");
  EXPECT_EQ(head.shape, (std::vector<int64_t>{3, 4}));
  EXPECT_TRUE(head.fortran_order);
  EXPECT_EQ(head.value_bytes(), 96u);
}

TEST(Npy, RefusesOtherHeadsInOneSentence) {
  struct Case {
    std::string bytes, sentence;
  };
  for (const Case& c : {
           Case{"PK\x03\x04 and so on", "does not begin as .npy files do"},
           Case{std::string("\x93NUMPY\x04\x00\x10\x00", 10), "version 4.0 of numpy's format"},
           Case{around("{'descr': '<f8'").substr(0, 20), "is cut short"},
           Case{around("{'descr': '<f8', 'fortran_order': False}"), "lacks one of"},
           Case{around("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"), "has the dtype '|O'"},
           Case{around("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}"), "a structured dtype"},
           Case{around("{'descr': '<f8', 'fortran_order': 0, 'shape': (1,)}"), "neither True nor False"},
           Case{around("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"), "no list of sizes"},
           Case{around("{'descr': '<f8', 'fortran_order': False, 'shape': (4000000000, 4000000000)}"),
                "that no file can hold"},
           Case{around("{'descr': '<f8', 'other': 3}"), "unknown key 'other'"},
           Case{around("{'descr': '<f8"), "a string without an end"},
       }) {
    const std::string said = base::message_of<UserError>([&] { parse_npy_head(c.bytes, "a.npz: entry 'x'"); });
    EXPECT_THAT(said, HasSubstr("a.npz: entry 'x': "));
    EXPECT_THAT(said, HasSubstr(c.sentence));
  }
}

TEST(Npy, RefusesAnEntryOfAnotherLengthThanItsHeadSays) {
  const base::TemporaryFolder folder;
  {
    ZipWriter out(folder / "a.npz");
    out.add("mu.npy", write_npy_head({"<f8", {3}}) + std::string(16, '\0'));
    out.add("no.npy", "");
    out.commit();
  }
  const ZipFile zip(folder / "a.npz");
  EXPECT_THAT(base::message_of<UserError>([&] { read_npy_head(zip, zip.at("mu.npy")); }),
              HasSubstr("entry 'mu.npy': holds 16 bytes of values, its head announces 24"));
  EXPECT_THAT(base::message_of<UserError>([&] { read_npy_head(zip, zip.at("no.npy")); }),
              HasSubstr("does not begin as .npy files do"));
}

}  // namespace
}  // namespace varscale::archives
