#!/usr/bin/env bash
# Runs a test at the length that is too long for launch/test.sh and leaves results/proofs/<date>_<name>.md
# with machine, versions, command, figures and verdict.
#
#   ./launch/prove.sh restart            200 kills at random instants: 20 at one rank, 90 at two, 90 at three
#   ./launch/prove.sh layout             1, 2, 3 and 4 ranks over 20 steps, bounds asked for
#   ./launch/prove.sh layout-long        the same over 200 steps: how far roundings spread
#   VARSCALE_BIN=build/cuda/bin ./launch/prove.sh restart       the programs of another build
set -euo pipefail
cd "$(dirname "$0")/.."

name=${1:-}
case $name in
  restart)     command=(restart_test.py --kills 200) ;;
  layout)      command=(layout_test.py --ranks 2 3 4) ;;
  layout-long) command=(layout_test.py --ranks 2 3 --steps 200) ;;
  *)
    echo "prove.sh: no proof is named '$name'; expected restart, layout or layout-long" >&2
    exit 2
    ;;
esac

export VARSCALE_SOURCE=$PWD VARSCALE_BIN=${VARSCALE_BIN:-build/release/bin}
if [ ! -x "$VARSCALE_BIN/var_sweep" ]; then
  echo "prove.sh: $VARSCALE_BIN/var_sweep is not there; build it first (launch/test.sh)" >&2
  exit 2
fi
python=.deps/venv/bin/python
commit=$(git rev-parse --short HEAD)$(git diff --quiet HEAD || echo ' with changes')
file=results/proofs/$(date +%F)_$name.md
figures=$(mktemp)
trap 'rm -f "$figures"' EXIT

begin=$SECONDS
verdict="holds"
"$python" "tests/programs/${command[0]}" "${command[@]:1}" 2>&1 | tee "$figures" || verdict="FAILED"

mkdir -p results/proofs
cat >"$file.part" <<REPORT
# $name: $verdict

- date: $(date -u +%FT%TZ), $((SECONDS - begin)) s
- machine: $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, $(free -g | awk '/^Mem/ {print $2}') GiB
- versions: commit $commit, torch $("$python" -c 'from importlib.metadata import version; print(version("torch"))'), g++ $(g++ -dumpfullversion), $(mpirun --version | head -n 1)
- command: \`./launch/prove.sh $name\`, which runs \`tests/programs/${command[*]}\`

\`\`\`
$(cat "$figures")
\`\`\`
REPORT
mv "$file.part" "$file"
echo "$file: $verdict"
[ "$verdict" = holds ]
