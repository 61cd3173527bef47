// docs/sweeps.md names every setting, with its default and whether it enters the id, and every key of evaluate.
#include <cstdlib>
#include <filesystem>

#include "base/file.hpp"
#include "sweep/evaluation.hpp"
#include "sweep/settings.hpp"
#include "tests/sweep/sweep_fixture.hpp"

namespace varscale::sweep {
namespace {

std::string row_of(const base::ConfigHelpLine& line) {
  return "| `" + line.key + "` | " + line.default_value + " | " + line.help + " | " +
         (line.identity == base::Identity::kYes ? "yes" : "no") + " |";
}

TEST(Docs, HaveARowForEverySetting) {
  const char* source = std::getenv("VARSCALE_SOURCE");
  ASSERT_NE(source, nullptr);
  const std::string page = base::read_file(std::filesystem::path(source) / "docs" / "sweeps.md");
  std::string expected;
  for (const base::ConfigHelpLine& line : setting_keys()) expected += row_of(line) + "\n";
  EXPECT_THAT(page, testing::HasSubstr(expected));
}

TEST(Docs, HaveARowForEveryKeyOfEvaluate) {
  const char* source = std::getenv("VARSCALE_SOURCE");
  ASSERT_NE(source, nullptr);
  const std::string page = base::read_file(std::filesystem::path(source) / "docs" / "sweeps.md");
  std::string expected;
  for (const base::ConfigHelpLine& line : base::help_config<EvaluationConfig>()) {
    EXPECT_EQ(line.identity, base::Identity::kNo) << line.key;
    expected += "| `" + line.key + "` | " + line.default_value + " | " + line.help + " |\n";
  }
  EXPECT_THAT(page, testing::HasSubstr(expected));
}

}  // namespace
}  // namespace varscale::sweep
