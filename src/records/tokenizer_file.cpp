#include "records/tokenizer_file.hpp"

#include "records/record_file_impl.hpp"

namespace varscale::records {

namespace table {

constexpr Field kTokenizerStepFields[] = {
    VARSCALE_INT(TokenizerStepRow, step),           VARSCALE_INT(TokenizerStepRow, segment),
    VARSCALE_REAL(TokenizerStepRow, images),        VARSCALE_REAL(TokenizerStepRow, lr),
    VARSCALE_REAL(TokenizerStepRow, loss),          VARSCALE_REAL(TokenizerStepRow, l2),
    VARSCALE_REAL(TokenizerStepRow, l1),            VARSCALE_REAL(TokenizerStepRow, lpips),
    VARSCALE_REAL(TokenizerStepRow, vq),            VARSCALE_REAL(TokenizerStepRow, entropy),
    VARSCALE_REAL(TokenizerStepRow, generator),     VARSCALE_REAL(TokenizerStepRow, adversarial_weight),
    VARSCALE_REAL(TokenizerStepRow, discriminator), VARSCALE_REAL(TokenizerStepRow, real_logit),
    VARSCALE_REAL(TokenizerStepRow, fake_logit),    VARSCALE_REAL(TokenizerStepRow, grad_norm),
    VARSCALE_REAL(TokenizerStepRow, discriminator_grad_norm), VARSCALE_INT(TokenizerStepRow, codes_used),
    VARSCALE_INT(TokenizerStepRow, restarted),      VARSCALE_REAL(TokenizerStepRow, step_s)};
constexpr Field kCodeFields[] = {VARSCALE_INT(CodeRow, step),   VARSCALE_INT(CodeRow, scale),
                                 VARSCALE_INT(CodeRow, tokens), VARSCALE_INT(CodeRow, used),
                                 VARSCALE_INT(CodeRow, dead),   VARSCALE_REAL(CodeRow, perplexity)};

template <>
struct TableOf<TokenizerStepRow> {
  static constexpr const char* kName = "steps";
  static constexpr std::span<const Field> kFields = kTokenizerStepFields;
  static constexpr bool kStrictSteps = true;
};
template <>
struct TableOf<CodeRow> {
  static constexpr const char* kName = "codes";
  static constexpr std::span<const Field> kFields = kCodeFields;
  static constexpr bool kStrictSteps = false;
};
static_assert(sizeof(TokenizerStepRow) == 8 * std::size(kTokenizerStepFields), "a field is missing in the table");
static_assert(sizeof(CodeRow) == 8 * std::size(kCodeFields), "a field is missing in the table");

}  // namespace table

template <>
struct Schema<TokenizerTables> {
  static constexpr int64_t kVersion = 1;
  static constexpr const char* kKind = "record of a tokenizer's training";
  static constexpr size_t kTables = 2;
  template <class Tables, class F>
  static void each(Tables& tables, F f) {
    f(tables.steps), f(tables.codes);
  }
};

template class RecordFile<TokenizerTables>;
template void TokenizerRecord::append(const TokenizerStepRow&);
template void TokenizerRecord::append(const CodeRow&);

TokenizerTables read_tokenizer_record(const std::filesystem::path& path) { return read_tables<TokenizerTables>(path); }

void write_tokenizer_record(const std::filesystem::path& path, const TokenizerTables& tables) {
  write_tables(path, tables);
}

}  // namespace varscale::records
