#!/usr/bin/env bash
# Runs what is too long for launch/test.sh and leaves results/proofs/<date>_<name>.md with machine, versions,
# command, figures and verdict.
#
#   ./launch/prove.sh restart            200 kills at random instants: 20 at one rank, 90 at two, 90 at three
#   ./launch/prove.sh layout             1, 2, 3 and 4 ranks over 20 steps, bounds asked for
#   ./launch/prove.sh layout-long        the same over 200 steps: how far roundings spread
#   ./launch/prove.sh slurm              batch jobs on two nodes of a local Slurm: limit, lost rank and node, cancelled, array
#   ./launch/prove.sh sanitizers         the tests under the address, leak and thread sanitizers
#   ./launch/prove.sh many-runs          a sweep of 2,000 runs of half a second: under 1 % outside runs; a quiet machine
#   ./launch/prove.sh samples            500 images: one archive at batch 1, 7, 32, at 1 to 3 ranks and after kills; tokens
#                                        that other groups and bf16 leave equal
#   ./launch/prove.sh large-archive      an archive of 12 GB by var_sample, read by numpy and by var_eval's reader; 24 GB of
#                                        disk, 14 GiB of memory for all of it
#   ./launch/prove.sh bad-sets           the sentence about each wrong file that var_eval may be given
#   ./launch/prove.sh coverage           1,000 synthetic sweeps a case: how often 90 % intervals hold the constants of the law
#   ./launch/prove.sh fuzz               ten minutes of each fuzzer under the address and undefined behaviour sanitizers
#   ./launch/prove.sh fuzz pth_fuzz      of that one alone
#   VARSCALE_BIN=build/cuda/bin ./launch/prove.sh restart       the programs of another build
set -euo pipefail
cd "$(dirname "$0")/.."

export VARSCALE_SOURCE=$PWD VARSCALE_BIN=${VARSCALE_BIN:-build/release/bin}
python=.deps/venv/bin/python

# A case is any command that prints its figures and fails where the claim does not hold. What it needs built
# beforehand is in `needs`.
name=${1:-}
needs=$VARSCALE_BIN/var_sweep
case $name in
  restart)     command=("$python" tests/programs/restart_test.py --kills 200) ;;
  layout)      command=("$python" tests/programs/layout_test.py --ranks 2 3 4) ;;
  layout-long) command=("$python" tests/programs/layout_test.py --ranks 2 3 --steps 200) ;;
  slurm)       command=("$python" tests/programs/slurm_test.py) ;;
  many-runs)   command=("$python" tests/programs/many_runs_test.py) ;;
  samples)     command=("$python" tests/programs/sample_many_test.py) needs=$VARSCALE_BIN/var_sample ;;
  large-archive) command=("$python" tests/programs/large_archive_test.py) needs=$VARSCALE_BIN/../tests/npz_rows ;;
  bad-sets)    command=("$python" tests/programs/bad_sets_test.py) needs=$VARSCALE_BIN/var_eval ;;
  coverage)    command=(env VARSCALE_REPETITIONS=1000 "$VARSCALE_BIN/../tests/fit_coverage_test" --gtest_brief=1)
               needs=$VARSCALE_BIN/../tests/fit_coverage_test ;;
  sanitizers)  command=(./launch/sanitizers.sh) needs= ;;
  fuzz)        command=(./launch/fuzz.sh 600 "$(date +%s)" "${@:2}") needs= ;;
  *)
    echo "prove.sh: no proof is named '$name'; expected restart, layout, layout-long, slurm, many-runs, samples," \
      "large-archive, bad-sets, coverage, sanitizers or fuzz" >&2
    exit 2
    ;;
esac

if [ $# -gt 1 ] && [ "$name" != fuzz ]; then
  echo "prove.sh: $name takes no '$2'; only fuzz does, the name of a fuzzer" >&2
  exit 2
fi
if [ -n "$needs" ] && [ ! -x "$needs" ]; then
  echo "prove.sh: $needs is not there; build it first (launch/test.sh)" >&2
  exit 2
fi
# Results of another proof change nothing in this one.
commit=$(git rev-parse --short HEAD)$(git diff --quiet HEAD -- . ':!results' || echo ' with changes')
title=$(IFS=-; echo "$*")
file=results/proofs/$(date +%F)_$title.md
figures=$(mktemp)
trap 'rm -f "$figures"' EXIT

begin=$SECONDS
verdict="holds"
"${command[@]}" 2>&1 | tee "$figures" || verdict="FAILED"

mkdir -p results/proofs
cat >"$file.part" <<REPORT
# $title: $verdict

- date: $(date -u +%FT%TZ), $((SECONDS - begin)) s
- machine: $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(nproc --all) cores, $(free -g | awk '/^Mem/ {print $2}') GiB
- versions: commit $commit, torch $("$python" -c 'from importlib.metadata import version; print(version("torch"))'), g++ $(g++ -dumpfullversion), $(mpirun --version | head -n 1)
- command: \`./launch/prove.sh $*\`, which runs \`${command[*]}\`

\`\`\`
$(cat "$figures")
\`\`\`
REPORT
mv "$file.part" "$file"
echo "$file: $verdict"
[ "$verdict" = holds ]
