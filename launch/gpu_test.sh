#!/usr/bin/env bash
# The tests of the GPU parts, on a machine with a GPU, a driver and a CUDA toolkit. Without a GPU they fail.
#
#   ./launch/gpu_test.sh                 set-up with the GPU libraries (4 GB in all), build of the cuda preset, tests
#   ./launch/gpu_test.sh build/cuda      the tests of a build that is there; installs and builds nothing
#
# Two ranks need two GPUs, or one GPU and NCCL 2.30 or newer first in LD_LIBRARY_PATH (libtorch brings 2.28):
#   LD_LIBRARY_PATH=/opt/nccl-2.30/lib ./launch/gpu_test.sh
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  "")
    build=build/cuda
    ./launch/setup.sh --gpu
    cmake --preset cuda >/dev/null
    cmake --build $build --target gpu_test gpu_ranks_test
    ;;
  -*) sed -n '2,8p' "$0"; exit 2 ;;
  *) build=$1 ;;
esac

for program in gpu_test gpu_ranks_test; do
  if [ ! -x "$build/tests/$program" ]; then
    echo "gpu_test.sh: $build/tests/$program is not there; build the cuda preset first" >&2
    exit 2
  fi
done
missing=$(ldd "$build/tests/gpu_test" | awk '/not found/ {print $1}' | sort -u | tr '\n' ' ')
if [ -n "$missing" ]; then
  echo "gpu_test.sh: libraries are missing: $missing; run ./launch/setup.sh --gpu" >&2
  exit 2
fi

command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
ctest --test-dir "$build" --output-on-failure --no-tests=error -L '^gpu$'
if why=$("$build/tests/gpu_ranks_test" --can-run); then
  ctest --test-dir "$build" --output-on-failure --no-tests=error -L '^gpu_ranks$'
else
  echo "gpu_test.sh: two ranks were NOT tested: $why"
fi
