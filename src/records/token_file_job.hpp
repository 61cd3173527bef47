// A token file that several processes write, over as many launches as it takes.
//
//   TokenFileJob job = TokenFileJob::begin(out, info, quantizer, plan);       // the first process
//   TokenFileJob job = TokenFileJob::join(out, rank, words_of_the_first);     // the others
//   for (int64_t block : my part of job.left()) job.write(block, tokens, labels, source_ids);
//   job.commit();                                                             // the first, once all have finished
//
// Folder   OUT.part/ while it is made: tokens.h5 with its metadata complete, job.txt with what is being done, and
//          one file done-<launch>-<process> each, to which a process appends a line (block, checksum) once it has
//          written the block's rows. commit() moves tokens.h5 to OUT and removes the rest.
// Resume   begin() finds the folder, compares job.txt and takes for done the blocks whose rows fit their checksum,
//          whatever the number of processes was. What was lost with the machine's memory is written again.
// Bytes    Those of TokenFileWriter for the same rows.
// Errors   UserError: OUT cannot be written, or OUT.part was begun otherwise (with the first difference), or another
//          launch is at work in it. SystemError: the disk; the folder stays, and the next launch goes on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "records/token_file.hpp"

namespace varscale::records {

struct TokenFilePlan {
  std::vector<int64_t> begins;  // block b has the rows [begins[b], begins[b + 1]); the last is the number of rows
  std::string settings;         // what else must be equal to go on, in lines "name value"
};

class TokenFileJob {
 public:
  static TokenFileJob begin(const std::filesystem::path& out, const TokenFileInfo& info,
                            const QuantizerWeights& quantizer, const TokenFilePlan& plan);
  static TokenFileJob join(const std::filesystem::path& out, int process, const std::string& words);
  TokenFileJob(TokenFileJob&&) noexcept;
  ~TokenFileJob();

  std::string words() const;                            // of the first process, for join()
  const std::vector<int64_t>& left() const noexcept;    // blocks without rows, rising
  std::vector<int64_t> rows(int64_t block) const;       // {first, end}
  // All rows of the block: tokens [rows, L], a label and a source id each. UserError: a label that is no class.
  void write(int64_t block, const std::vector<uint16_t>& tokens, const std::vector<int32_t>& labels,
             const std::vector<int64_t>& source_ids);
  int64_t rows_done() const;  // by all processes, in this launch and before

  // A word to all processes of this launch: end after your block.
  void ask_to_stop() const;
  bool asked_to_stop() const;

  void commit();            // runtime_error: a block is missing or does not fit its checksum; start again
  void discard() noexcept;  // removes the folder

 private:
  struct Impl;
  explicit TokenFileJob(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace varscale::records
