// What a tokenizer's training has measured, readable by pandas and h5py: <out>.h5 beside the tokenizer.
//
//   TokenizerRecord record = TokenizerRecord::create("tok.h5", facts);
//   record.append(TokenizerStepRow{...}); record.flush();
//   pandas: pd.read_hdf("tok.h5", "codes")
//
// Layout   /steps, /codes as records/record_file.hpp has it; schema_version is 1.
// Errors   UserError naming the file: not HDF5, truncated, another schema, a missing table, column or order of rows.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "records/record_file.hpp"

namespace varscale::records {

// One optimiser step; losses over the whole batch, before their weights. 0 where a term is switched off.
struct TokenizerStepRow {
  int64_t step;     // 1 after the first update
  int64_t segment;  // how often the training had been started when this row was written, from 0
  double images;    // seen so far, this step included
  double lr;
  double loss;  // the weighted sum that the tokenizer's update follows, without the adversarial term
  double l2, l1, lpips, vq, entropy;
  double generator;              // adversarial term
  double adversarial_weight;     // what it was multiplied by
  double discriminator;          // the discriminator's loss, penalties included
  double real_logit, fake_logit; // means
  double grad_norm, discriminator_grad_norm;  // before clipping
  int64_t codes_used;            // chosen in this batch
  int64_t restarted;             // codes put elsewhere after it
  double step_s;                 // of the first rank
};

// How one scale used the codes in the batches since the last such rows.
struct CodeRow {
  int64_t step, scale;  // scale from 0
  int64_t tokens;       // chosen
  int64_t used, dead;   // codes: chosen at least once, never
  double perplexity;    // exp of the entropy of the choices
};

struct TokenizerTables {
  Facts facts;
  std::vector<TokenizerStepRow> steps;
  std::vector<CodeRow> codes;
};

using TokenizerRecord = RecordFile<TokenizerTables>;

TokenizerTables read_tokenizer_record(const std::filesystem::path& path);
// A complete file: aside, fsync, rename.
void write_tokenizer_record(const std::filesystem::path& path, const TokenizerTables& tables);

}  // namespace varscale::records
