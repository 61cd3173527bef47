// The tables of docs/inference.md are those of count_forward().
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/file.hpp"
#include "scaling/count.hpp"

namespace varscale::scaling {
namespace {

std::string table_of(const VarShape& shape, double unit) {
  const ForwardFlops flops = count_forward(shape);
  const double all = flops.total();
  std::string text;
  for (int64_t k = 0; k < shape.tokens.scales.count(); ++k) {
    const ScaleFlops& scale = flops.scales.at(static_cast<size_t>(k));
    text += fmt::format("| {} | {} | {} | {:.2f} | {:.1f} % | {:.1f} % |\n", k + 1, shape.tokens.scales.side(k),
                        shape.tokens.scales.tokens_at(k), scale.total() / unit, 100 * scale.total() / all,
                        100 * scale.attention / scale.total());
  }
  text += fmt::format("| condition | | | {:.2f} | {:.1f} % | |\n", flops.adaln / unit, 100 * flops.adaln / all);
  text += fmt::format("| all | | {} | {:.2f} | 100 % | {:.1f} % |\n", shape.tokens.scales.tokens(), all / unit,
                      100 * flops.attention_share());
  return text;
}

TEST(InferencePage, HasTheCountedCostOfEveryMap) {
  const char* source = std::getenv("VARSCALE_SOURCE");
  ASSERT_NE(source, nullptr);
  const std::string page = base::read_file(std::filesystem::path(source) / "docs" / "inference.md");
  const VarShape d16 =
      VarShape::from_depth(16, {4096, 32, ScaleList({1, 2, 3, 4, 5, 6, 8, 10, 13, 16})}, /*classes=*/1000);
  const VarShape quickstart = VarShape::from_depth(5, {256, 16, ScaleList({1, 2, 4, 8})}, /*classes=*/10);
  EXPECT_THAT(page, testing::HasSubstr("| map | side | tokens | GFLOP | share | of it attention |\n"
                                       "| --- | --- | --- | --- | --- | --- |\n" +
                                       table_of(d16, 1e9)));
  EXPECT_THAT(page, testing::HasSubstr("| map | side | tokens | MFLOP | share | of it attention |\n"
                                       "| --- | --- | --- | --- | --- | --- |\n" +
                                       table_of(quickstart, 1e6)));
}

}  // namespace
}  // namespace varscale::scaling
