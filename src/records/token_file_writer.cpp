#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.hpp"
#include "base/file.hpp"
#include "records/token_file.hpp"
#include "records/token_writing.hpp"

namespace varscale::records {

using base::SystemError;
using base::UserError;
using Path = std::filesystem::path;

struct TokenFileWriter::Impl {
  Impl(const Path& target, const TokenFileInfo& the_info, const QuantizerWeights& weights)
      : path(target), info(the_info), quantizer(weights), file(target) {}
  ~Impl() {
    if (descriptor >= 0) ::close(descriptor);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Path path;
  TokenFileInfo info;
  QuantizerWeights quantizer;
  base::AtomicFile file;
  token_writing::Places places;
  int descriptor = -1;
  std::vector<bool> written;
};

TokenFileWriter::TokenFileWriter(const Path& path, const TokenFileInfo& info,
                                 const QuantizerWeights& quantizer) {
  token_layout::check_info(path.string(), info);
  impl_ = std::make_unique<Impl>(path, info, quantizer);
  const Path& temporary = impl_->file.temporary();
  impl_->places = token_writing::create(temporary, path, info, quantizer);
  impl_->descriptor = ::open(temporary.c_str(), O_WRONLY | O_CLOEXEC);
  if (impl_->descriptor < 0)
    throw SystemError(temporary.string() + ": cannot be opened for writing", errno);
  impl_->written.resize(static_cast<size_t>(info.rows()));
}

TokenFileWriter::~TokenFileWriter() = default;

void TokenFileWriter::write_row(int64_t row, const uint16_t* tokens_L, int32_t label,
                                int64_t source_id) {
  Impl& to = *impl_;
  VARSCALE_CHECK(row >= 0 && row < to.info.rows(), "row {} of {}", row, to.info.rows());
  const auto at = static_cast<size_t>(row);
  if (to.written[at]) throw UserError("{}: row {} is written twice", to.path.string(), row);
  if (label < 0 || label >= to.info.classes)
    throw UserError("{}: row {} (image {}) has label {}; expected 0 to {}", to.path.string(), row,
                    source_id, label, to.info.classes - 1);
  const int64_t length = to.info.tokens_per_image();
  for (int64_t i = 0; i < length; ++i)
    VARSCALE_CHECK(tokens_L[i] < to.info.vocabulary, "token {} of row {} is {}, vocabulary {}", i,
                   row, tokens_L[i], to.info.vocabulary);
  token_writing::write_rows(
      to.descriptor, to.file.temporary(), to.places, to.info,
      {.first = row, .count = 1, .tokens = tokens_L, .labels = &label, .source_ids = &source_id});
  to.written[at] = true;
}

void TokenFileWriter::commit() {
  Impl& to = *impl_;
  for (size_t row = 0; row < to.written.size(); ++row)
    VARSCALE_CHECK(to.written[row], "row {} of {} was not written", row, to.path.string());
  token_writing::finish(to.file.temporary(), to.path, to.info, to.quantizer, to.places);
  to.file.commit();
}

}  // namespace varscale::records
