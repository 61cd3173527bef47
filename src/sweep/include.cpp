#include "sweep/include.hpp"

#include <fmt/format.h>

#include <sstream>

#include "base/error.hpp"
#include "base/file.hpp"

namespace varscale::sweep {

using base::Faults;
using base::Node;
using base::UserError;

namespace {

constexpr int kMostIncludes = 10;  // one inside another

std::string read_included(const std::filesystem::path& path, const std::string& where) {
  try {
    return base::read_file(path);
  } catch (const UserError& error) {
    throw UserError("{}: cannot include {}", where, error.what());
  }
}

// Adds the document of `text`, read from path, after those that it includes; the texts of these come back as comments.
std::string add_layers(const std::filesystem::path& path, const std::string& text,
                        const std::vector<std::string>& overrides, int depth,
                        std::vector<base::Document>& layers) {
  base::Document document = base::Document::parse(text, path.string(), overrides);
  Faults unset;
  document.expand_environment(unset);
  unset.throw_if_any();
  const Node include = document.root().child("include");
  std::vector<Node> names;
  if (include.kind() == Node::Kind::kList) {
    names = include.items();
  } else if (include.present()) {
    names.push_back(include);
  }
  std::string comments;
  for (const Node& name : names) {
    Faults faults;
    const std::filesystem::path base = path.parent_path() / name.as_string(faults, "");
    faults.throw_if_any();
    if (depth == kMostIncludes)
      throw UserError("{}: more than {} files include one another, {} among them", name.where(),
                      kMostIncludes, base.string());
    const std::string included = read_included(base, name.where());
    comments += fmt::format("# include {}\n", base.string());
    std::istringstream lines(included);
    for (std::string line; std::getline(lines, line);) comments += "#   " + line + "\n";
    comments += add_layers(base, included, {}, depth + 1, layers);
  }
  layers.push_back(std::move(document));
  return comments;
}

}  // namespace

Layers load_layers(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  Layers layers;
  layers.text = base::read_file(path);
  layers.text += add_layers(path, layers.text, overrides, 0, layers.documents);
  return layers;
}

}  // namespace varscale::sweep
