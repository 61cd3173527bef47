#!/usr/bin/env bash
# Measures this project beside what else a user might take, turn by turn in one run, and writes the figures to
# results/benchmarks/<date>_<what>_<machine>.md.
#
#   ./launch/bench.sh step                          training steps against PyTorch: 256 px, d2 to d8, fp32 and bf16
#   ./launch/bench.sh step --depths 2 --precision fp32 --rounds 1 --out /tmp
#   ./launch/bench.sh step --help
#   ./launch/bench.sh cost                          a step's time against depth, batch and tokens, beside its FLOPs
#
# VARSCALE_BIN is the folder of the programs, build/release/bin if it is not set.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  step | cost) ;;
  *) sed -n '2,10p' "$0"; exit 2 ;;
esac
if [ ! -x .deps/venv/bin/python ]; then
  echo "bench: there is no Python in .deps/venv; run ./launch/setup.sh --compare" >&2
  exit 2
fi
exec .deps/venv/bin/python "tests/reference/compare_$1.py" "${@:2}"
