#include "sample_model.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cstring>
#include <optional>
#include <variant>

#include "archives/weights_file.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "checkpoint/checkpoint.hpp"
#include "records/token_file.hpp"
#include "sweep/identity.hpp"
#include "sweep/run_config.hpp"

namespace varscale::apps {
namespace {

namespace fs = std::filesystem;
using base::UserError;

// The settings a run was trained with, and its name.
struct RunOnDisk {
  std::string id;
  sweep::RunConfig config;
};

RunOnDisk read_run_folder(const fs::path& folder) {
  const fs::path path = folder / "config.yaml";
  if (!fs::exists(path))
    throw UserError("{}: no config.yaml here; expected the folder of a run, <sweep>/runs/<id>, or a weights file",
                    folder.string());
  const base::Document document = base::Document::load(path);
  base::Faults faults;
  RunOnDisk run;
  run.id = document.root().child("id").as_string(faults, folder.filename().string());
  document.root().child("identity").mark_read();
  run.config = base::read_config<sweep::RunConfig>(document.root(), faults);
  faults.refuse_unread(document);
  faults.throw_if_any();
  return run;
}

records::TokenFile open_tokens(const fs::path& moved_to, const RunOnDisk& run) {
  const fs::path path = moved_to.empty() ? fs::path(run.config.tokens) : moved_to;
  if (moved_to.empty() && !fs::exists(path))
    throw UserError("{}: its token file {} is not there; give its present place with --tokens", run.id, path.string());
  return records::TokenFile(path);
}

// The newest weights of the run; refuses those trained on other tokens.
int64_t load_newest(const fs::path& run, const records::TokenFile& tokens, const models::Var& model) {
  const checkpoint::CheckpointFolder checkpoints(run / "checkpoints", /*keep=*/1);
  const std::optional<int64_t> step = checkpoints.latest();
  if (!step) throw UserError("{}: the run has no checkpoint yet", run.string());
  const records::Facts facts = checkpoints.rows(*step).facts;
  const auto trained_on = facts.find("tokens_fingerprint");
  if (trained_on != facts.end() && trained_on->second != records::Fact(tokens.fingerprint()))
    throw UserError("{}: the run was trained on other tokens than {} holds", run.string(), tokens.path().string());
  checkpoints.load_weights(*step, model.parameters());
  return *step;
}

SampleModel model_of_run(const fs::path& from, const fs::path& moved_tokens, const fs::path& tokenizer_path,
                         const tokenizer::Vqvae& tokenizer) {
  const RunOnDisk run = read_run_folder(from);
  const records::TokenFile tokens = open_tokens(moved_tokens, run);
  if (tokenizer.fingerprint() != tokens.info().tokenizer_fingerprint)
    throw UserError("{}: not the tokenizer that made {}", tokenizer_path.string(), tokens.path().string());
  SampleModel loaded{.model = models::Var(sweep::shape_of(run.config, sweep::facts_of(tokens))),
                     .words = {},
                     .class_names = tokens.info().class_names,
                     .facts = {}};
  const int64_t step = load_newest(from, tokens, loaded.model);
  loaded.words = fmt::format("run {} (depth {}) after {} of {} steps", run.id, run.config.model.depth, step,
                             sweep::steps_of(run.config));
  loaded.facts["run"] = run.id;
  loaded.facts["depth"] = run.config.model.depth;
  loaded.facts["step"] = step;
  loaded.facts["images_seen"] = step * run.config.train.batch;
  return loaded;
}

SampleModel model_of_file(const fs::path& from) {
  const archives::WeightsFile file(from);
  file.verify();  // captions name the weights by their fingerprint
  SampleModel loaded{.model = models::Var(file.shape()), .words = {}, .class_names = {}, .facts = {}};
  const at::NoGradGuard no_grad;
  for (const nn::NamedTensor& named : loaded.model.parameters()) {
    const std::span<const float> values = file.values(named.name);
    VARSCALE_CHECK(named.tensor.is_contiguous() && values.size() == static_cast<size_t>(named.tensor.numel()),
                   "{} values of {}", values.size(), named.name);
    std::memcpy(named.tensor.mutable_data_ptr<float>(), values.data(), values.size_bytes());
  }
  loaded.words = fmt::format("{} (depth {})", from.filename().string(), file.shape().depth);
  loaded.facts["weights"] = file.fingerprint();
  loaded.facts["depth"] = file.shape().depth;
  for (const char* key : {"run_id", "step", "source", "source_sha256"})
    if (const auto found = file.metadata().find(key); found != file.metadata().end())
      loaded.facts[fmt::format("weights_{}", key)] = found->second;
  return loaded;
}

}  // namespace

SampleModel load_sample_model(const fs::path& from, const fs::path& tokens, const fs::path& tokenizer_path,
                              const tokenizer::Vqvae& tokenizer) {
  if (!fs::is_regular_file(from)) return model_of_run(from, tokens, tokenizer_path, tokenizer);
  if (!tokens.empty()) throw UserError("--tokens {}: a weights file needs no token file", tokens.string());
  return model_of_file(from);
}

}  // namespace varscale::apps
