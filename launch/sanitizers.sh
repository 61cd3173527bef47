#!/usr/bin/env bash
# Builds what the sanitizer presets cover and runs its tests; one line a preset. Any finding fails.
#
#   ./launch/sanitizers.sh            asan, then tsan
#   ./launch/sanitizers.sh tsan
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- asan tsan

verdict=0
for preset in "$@"; do
  cmake --preset "$preset" >/dev/null
  cmake --build --preset "$preset" >"build/$preset/build.log" || { tail -n 50 "build/$preset/build.log" >&2; exit 1; }
  begin=$SECONDS
  ctest --preset "$preset" -j 1 >"build/$preset/tests.log" 2>&1 || { verdict=1; cat "build/$preset/tests.log"; }
  log=build/$preset/Testing/Temporary/LastTest.log # with the output of every program
  programs=$(grep -cE '^[0-9]+/[0-9]+ Testing:' "$log" || true)
  tests=$(sed -nE 's/^\[  PASSED  \] ([0-9]+) tests?\.$/\1/p' "$log" | awk '{sum += $1} END {print sum + 0}')
  failed=$(grep -cE '^\[  FAILED  \] .* \([0-9]+ ms\)$' "$log" || true)
  findings=$(grep -cE '(ERROR|WARNING): (Address|Leak|Thread)Sanitizer|: runtime error: ' "$log" || true)
  [ "$findings" = 0 ] && [ "$tests" -gt 0 ] || verdict=1
  echo "$preset: $tests tests passed and $failed failed in $programs starts of programs, $findings findings, $((SECONDS - begin)) s"
done
exit $verdict
