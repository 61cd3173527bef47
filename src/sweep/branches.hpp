// Runs of one size and several budgets that share their first steps: a trunk at a constant rate, and for each
// budget a decay from one of its checkpoints.
//
//   branches: {train.epochs: [4, 8, 16]}         # in an entry of `runs`
//
//   std::vector<SweepRun> runs = ...;            // as three runs of their own, kind wsd
//   branch_faults(runs)                          // why they could not share a trunk, or nothing
//   SweepRun trunk = make_trunk(runs);           // and each of `runs` knows where it leaves it
//
// Every draw, batch and weight is a function of (seed, step), so up to its decay a run of kind wsd has no
// knowledge of its budget: a branch is the run of its settings and its id, and only its first steps are
// computed elsewhere.
#pragma once

#include <string>
#include <vector>

#include "sweep/ledger.hpp"
#include "sweep/spec.hpp"

namespace varscale::sweep {

struct BranchFault {
  std::string key;  // the setting to blame; empty: the budget of run `index`
  size_t index;
  std::string sentence;
};

// Runs of one entry that differ in budget. Empty: up to their decays they are one run.
std::vector<BranchFault> branch_faults(const std::vector<SweepRun>& runs);

// The run whose checkpoints they begin from: as many steps as the latest branch point, lasting checkpoints
// at all of them, role trunk. Sets `branch` of each.
SweepRun make_trunk(std::vector<SweepRun>& runs);

// Why a run cannot begin yet: its trunk has no checkpoint for it. Empty: it can, or is no branch.
std::string waiting_words(const SweepRun& run, const Ledger& ledger);

}  // namespace varscale::sweep
