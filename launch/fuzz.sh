#!/usr/bin/env bash
# Runs each fuzzer under the address and undefined behaviour sanitizers; what it finds lies in build/asan/findings.
#
#   ./launch/fuzz.sh                 ten minutes each
#   ./launch/fuzz.sh 60 7            60 s each, with seed 7
#   ./launch/fuzz.sh 60 7 pth_fuzz   that one alone
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-600} seed=${2:-$(date +%s)}
fuzzers=("${@:3}")
[ $# -gt 2 ] || fuzzers=(spec_fuzz run_file_fuzz manifest_fuzz safetensors_fuzz pth_fuzz tar_fuzz image_fuzz npz_fuzz)

cmake --preset asan >/dev/null
cmake --build build/asan --target "${fuzzers[@]}" >build/asan/fuzz.log || { tail -n 50 build/asan/fuzz.log >&2; exit 1; }
mkdir -p build/asan/findings
verdict=0
for fuzzer in "${fuzzers[@]}"; do
  VARSCALE_SOURCE=$PWD "build/asan/tests/$fuzzer" --seconds "$seconds" --seed "$seed" --findings build/asan/findings || verdict=1
done
exit $verdict
