#!/usr/bin/env bash
# GPU tests and benches on a bare machine: a driver, and a python3 with torch of this build's version; nothing is compiled or
# installed there.
#
#   ./launch/gpu_check.sh pack FOLDER           where the preset cuda is built: binaries and what they need, into FOLDER
#   FOLDER/launch/gpu_check.sh run OUT          there: the tests, then d8 and d16 in bf16 beside PyTorch; files into OUT
#   FOLDER/launch/gpu_check.sh run OUT --depths 24,30 --rounds 1       arguments of launch/bench.sh step, for the benches alone
#
# Two ranks are tested where mpirun is there, and two GPUs, or NCCL 2.30 or newer first in LD_LIBRARY_PATH.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
programs=(bin/var_bench tests/gpu_test tests/gpu_ranks_test)

usage() {
  sed -n '2,9p' "$0" >&2
  exit 2
}

# Libraries of the system: torch's, CUDA's and the C library's are the other machine's own.
pack() {
  local folder=$1 program library
  for program in "${programs[@]}"; do
    [ -x "$root/build/cuda/$program" ] || {
      echo "gpu_check.sh: build/cuda/$program is not there; build the preset cuda first" >&2
      exit 2
    }
  done
  if [ -e "$folder" ]; then
    echo "gpu_check.sh: $folder is there already; name a new folder" >&2
    exit 2
  fi
  mkdir -p "$folder"/{bin,lib,launch,tests/programs}
  for program in "${programs[@]}"; do
    cp "$root/build/cuda/$program" "$folder/bin/"
    ldd "$root/build/cuda/$program" | awk '$2 == "=>" && $3 ~ "^/" {print $3}'
  done | sort -u | while read -r library; do
    case $library in
      */site-packages/* | */cuda/* | */libcud* | */libcubl* | */libcufft* | */libcufile* | */libcurand* | */libcus* | */libcupti* | */libnv* | \
        */libnccl* | */ld-linux* | */libc.so* | */libm.so* | */libdl.so* | */libpthread.so* | */librt.so*) ;;
      *) cp -L "$library" "$folder/lib/" ;;
    esac
  done
  cp "$root/launch/gpu_check.sh" "$folder/launch/"
  cp -r "$root/tests/fixtures" "$root/tests/reference" "$folder/tests/"
  cp "$root/tests/programs/torch_python.py" "$folder/tests/programs/"
  git -C "$root" rev-parse --short HEAD >"$folder/commit"
  du -sh "$folder"
}

run() {
  local out=$1 torch failed=0
  shift
  mkdir -p "$out"
  out=$(cd "$out" && pwd)
  torch=$(python3 -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])' 2>/dev/null) || {
    echo "gpu_check.sh: python3 has no torch, whose libraries the programs need" >&2
    exit 2
  }
  local libraries=$torch/lib
  for library in "$(dirname "$torch")"/nvidia/*/lib; do libraries+=:$library; done
  export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries:$root/lib
  export VARSCALE_BIN=$root/bin VARSCALE_SOURCE=$root VARSCALE_FIXTURES=$root/tests/fixtures
  command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$out/gpu.txt"
  if [ $# = 0 ]; then
    echo "== gpu_test"
    "$root/bin/gpu_test" --gtest_brief=1 2>&1 | tee "$out/gpu_test.txt" || failed=1
    local why
    if why=$("$root/bin/gpu_ranks_test" --can-run) && command -v mpirun >/dev/null; then
      echo "== gpu_ranks_test"
      NCCL_MULTI_RANK_GPU_ENABLE=1 mpirun --oversubscribe -n 2 "$root/bin/gpu_ranks_test" 2>&1 | tee "$out/gpu_ranks_test.txt" ||
        failed=1
    else
      echo "gpu_check.sh: two ranks were NOT tested: ${why:-there is no mpirun}" | tee "$out/gpu_ranks_test.txt"
    fi
    set -- --depths 8,16 --rounds 2
  fi
  echo "== steps beside PyTorch"
  python3 "$root/tests/reference/compare_step.py" --device cuda --precision bf16 --out "$out" "$@" || failed=1
  rm -f "$out/graphs.json"
  echo "== a step launched kernel by kernel, and as one recorded graph"
  for depth in 2 4 8; do
    for graph in "" --graph; do
      "$root/bin/var_bench" step --device cuda --precision bf16 --depth $depth --batch 64 $graph | tee -a "$out/graphs.json" || failed=1
    done
  done
  echo "== collectives and products"
  "$root/bin/var_bench" collectives --device cuda | tee "$out/collectives.json" || failed=1
  "$root/bin/var_bench" products --device cuda --precision bf16 --side 2048,4096,8192 | tee "$out/products.json" || failed=1
  exit $failed
}

case "${1:-}" in
  pack) [ $# = 2 ] || usage; pack "$2" ;;
  run) [ $# -ge 2 ] || usage; run "${@:2}" ;;
  *) usage ;;
esac
