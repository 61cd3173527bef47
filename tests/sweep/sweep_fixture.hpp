// Sweeps from a text in a test, with a token file that is only stated.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "sweep/ledger.hpp"
#include "sweep/spec.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::sweep {

inline TokenFacts small_tokens() {
  TokenFacts facts;
  facts.train_images = 14000;
  facts.validation_images = 500;
  facts.classes = 10;
  facts.space = {256, 16, scaling::ScaleList({1, 2, 4, 8})};
  facts.fingerprint = "5eed";
  return facts;
}

inline TokenFacts imagenet_tokens() {
  TokenFacts facts;
  facts.train_images = 1281167;
  facts.validation_images = 50000;
  facts.classes = 1000;
  facts.space = {4096, 32, scaling::ScaleList({1, 2, 3, 4, 5, 6, 8, 10, 13, 16})};
  facts.fingerprint = "1a9e";
  return facts;
}

// Knows two token files.
inline std::optional<TokenFacts> stated_tokens(const std::filesystem::path& path) {
  if (path == "small.h5") return small_tokens();
  if (path == "imagenet.h5") return imagenet_tokens();
  if (path == "broken.h5") throw base::UserError("broken.h5 is not a token file");
  return std::nullopt;
}

inline Sweep sweep_of(const std::string& text, const std::vector<std::string>& overrides = {},
                      Purpose purpose = Purpose::kTrain) {
  return read_sweep({base::Document::parse(text, "t.yaml", overrides)}, purpose, stated_tokens);
}

// The sentences with which a sweep is refused; empty if it is accepted.
inline std::string refusal_of(const std::string& text,
                              const std::vector<std::string>& overrides = {},
                              Purpose purpose = Purpose::kTrain) {
  try {
    sweep_of(text, overrides, purpose);
  } catch (const base::UserError& error) {
    return error.what();
  }
  return "";
}

// The first run that may start and is not in `tried`.
inline std::optional<size_t> next_run(const Sweep& sweep, const Ledger& ledger,
                                      const std::set<std::string>& tried) {
  for (size_t i = 0; i < sweep.runs.size(); ++i)
    if (!tried.contains(sweep.runs[i].id) && may_start(sweep.runs[i], ledger)) return i;
  return std::nullopt;
}

using base::TemporaryFolder;

}  // namespace varscale::sweep
