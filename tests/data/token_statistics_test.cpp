#include "data/token_statistics.hpp"

#include <cmath>

#include "support.hpp"

namespace varscale::data {
namespace {

constexpr int64_t kVocabulary = 8;

TokenStatistics statistics_of(const std::function<uint16_t(int64_t, int64_t)>& token,
                              const std::function<int32_t(int64_t)>& label, int64_t train) {
  const TemporaryFolder folder;
  const records::TokenFile file(
      write_tokens(folder / "t.h5", train, 8, 1, token, label, 2, kVocabulary));
  return token_statistics(file);
}

TEST(TokenStatistics, OneCodeEverywhereCostsTheSmoothingAlone) {
  const TokenStatistics s =
      statistics_of([](int64_t, int64_t) { return 3; }, [](int64_t) { return 0; }, 100);
  EXPECT_EQ(s.codes_used, 1);
  EXPECT_DOUBLE_EQ(s.entropy, 0);
  // 500 training tokens of code 3 and half a count for each of 8 codes.
  EXPECT_NEAR(s.unigram, -std::log(500.5 / 504), 1e-12);
  // The first scale has one token an image, the second four.
  EXPECT_NEAR(s.scales[0].unigram, -std::log(100.5 / 104), 1e-12);
  EXPECT_NEAR(s.scales[1].unigram, -std::log(400.5 / 404), 1e-12);
  EXPECT_NEAR(s.scale_unigram, 0.2 * s.scales[0].unigram + 0.8 * s.scales[1].unigram, 1e-12);
}

TEST(TokenStatistics, EqualUseOfAllCodesCostsLogV) {
  const TokenStatistics s = statistics_of(
      [](int64_t r, int64_t l) { return (r + l) % kVocabulary; }, [](int64_t) { return 0; }, 80);
  EXPECT_EQ(s.codes_used, kVocabulary);
  for (const double nats :
       {s.entropy, s.unigram, s.scale_unigram, s.class_unigram, s.scales[1].entropy}) {
    EXPECT_NEAR(nats, std::log(8.0), 1e-12);
  }
}

TEST(TokenStatistics, AClassThatFixesTheCodeIsSeen) {
  // Class c always shows code c: log 2 without the class, near nothing with it.
  const TokenStatistics s =
      statistics_of([](int64_t r, int64_t) { return r % 2; },
                    [](int64_t r) { return static_cast<int32_t>(r % 2); }, 1000);
  EXPECT_NEAR(s.entropy, std::log(2.0), 1e-12);
  EXPECT_NEAR(s.unigram, -std::log(2500.5 / 5004), 1e-12);
  EXPECT_NEAR(s.class_unigram, -std::log((2500 + 4 * 2500.5 / 5004) / 2504), 1e-12);
}

}  // namespace
}  // namespace varscale::data
