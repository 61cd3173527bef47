#!/usr/bin/env bash
# From nothing to a fitted scaling law on this machine's CPU: set-up, build, images, tokenizer, token cache,
# a sweep of model depths over two ranks, fit, samples, report.
#
#   ./launch/quickstart.sh          d1 to d5, two seeds at the small depths: at most 35 minutes on 2 cores
#   ./launch/quickstart.sh --fast   d1 to d4, about 20 minutes; too few sizes for a claim of prediction
#
# Every stage that is already complete is skipped, so an interrupted quickstart goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."

sweep=quickstart
case "${1:-}" in
  "") ;;
  --fast) sweep=quickstart_fast ;;
  *) sed -n '2,8p' "$0"; exit 2 ;;
esac

out=results/${sweep/_/-}
images=results/quickstart-images
bin=build/release/bin
cores=$(nproc)
begin=$SECONDS
stages=()

# stage "what it does" COMMAND...: says it, runs it, notes the time.
stage() {
  local what=$1 from=$SECONDS
  shift
  printf '\n== %s\n' "$what"
  "$@"
  stages+=("$(printf '%6d s  %s' $((SECONDS - from)) "$what")")
}

build() {
  cmake --preset release >/dev/null
  cmake --build build/release --target var_data var_tokenizer var_sweep var_sample var_fit
}

judge_tokenizer() {
  env OMP_NUM_THREADS="$cores" $bin/var_tokenizer eval --tokenizer "$out/tokenizer.safetensors" \
    --images "$images/val" --picture "$out/reconstructions.png"
}

make_tokens() {
  env OMP_NUM_THREADS="$cores" $bin/var_data tokenize --train "$images/train" --val "$images/val" \
    --tokenizer "$out/tokenizer.safetensors" --out "$out/tokens.h5"
  $bin/var_data inspect "$out/tokens.h5"
  $bin/var_data inspect --json "$out/tokens.h5" >"$out/token_statistics.json"
}

draw_by_depth() {
  local run
  for run in "$out"/runs/d*-s0-*; do
    env OMP_NUM_THREADS="$cores" $bin/var_sample "$run" --tokenizer "$out/tokenizer.safetensors" --per-class 2 --cfg 3 --top-p 0.9 \
      --out "$run/samples.png"
  done
}

stage "set-up: packages, libtorch" ./launch/setup.sh
stage "build the programs" build
mkdir -p "$out"
if [ ! -d "$images" ]; then
  stage "draw 12,500 images of 10 classes" $bin/var_data synth --out "$images" --train 12000 --val 500 --side 32 --seed 0
fi
if [ ! -f "$out/tokenizer.safetensors" ]; then
  stage "train the tokenizer" env OMP_NUM_THREADS="$cores" $bin/var_tokenizer train sweeps/quickstart_tokenizer.yaml \
    --images "$images/train" --out "$out/tokenizer.safetensors"
fi
[ -f "$out/reconstructions.png" ] || stage "judge the tokenizer" judge_tokenizer
[ -f "$out/tokens.h5" ] || stage "turn the images into tokens" make_tokens
stage "train the models of sweeps/$sweep.yaml on two ranks" ./launch/mpirun.sh -n 2 $bin/var_sweep "sweeps/$sweep.yaml"
if [ "$sweep" = quickstart ]; then
  stage "predict the deepest model from the smaller ones alone" $bin/var_fit "$out" --register-prediction
else
  printf '\n== no claim of prediction: four sizes leave too few to predict the deepest from\n'
fi
deepest=$(basename "$(ls -d "$out"/runs/d* | sort -V | tail -n 1)")
stage "draw samples of the deepest model" env OMP_NUM_THREADS="$cores" $bin/var_sample "$out/runs/$deepest" \
  --tokenizer "$out/tokenizer.safetensors" --per-class 8 --cfg 3 --top-p 0.9 --out "$out/samples.png"
stage "draw samples of each depth" draw_by_depth
stage "fill in the middle of an image" env OMP_NUM_THREADS="$cores" $bin/var_sample inpaint "$out/runs/$deepest" \
  --tokenizer "$out/tokenizer.safetensors" --image "$images/val/02_mosaic/000002.png" --box 8,8,24,24 --top-p 0.9 \
  --out "$out/inpaint.png"
stage "fit the laws and write the report" $bin/var_fit "$out"

printf '\nStages:\n'
printf '%s\n' "${stages[@]}"
printf '%6d s  in all\n\n' $((SECONDS - begin))
printf 'The law:  %s\n' "$(cat "$out/fit/law.txt")"
printf 'Report:   %s\n' "$out/fit/report.html"
