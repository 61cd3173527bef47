"""What a sweep of many tiny runs costs outside its runs. For launch/prove.sh: it measures, and wants a machine at rest."""

import argparse
import pathlib
import re
import time

from support import check, make_images, make_tokens, run, run_folders, scratch, status

SWEEP = """
name: many
output: many
defaults:
  tokens: tokens.h5
  train: {{batch: 16, images: {images}}}
  eval: {{points: 1}}
runs: [{{model.depth: 1, train.seed: {seeds}}}]
"""
MOST_OUTSIDE = 0.01


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--images", type=int, default=1600, help="of each run, in batches of 16")
    parser.add_argument("--ranks", type=int, default=2)
    arguments = parser.parse_args()
    with scratch("many"):
        make_images()
        make_tokens()
        pathlib.Path("many.yaml").write_text(
            SWEEP.format(images=arguments.images, seeds=list(range(arguments.runs))))
        begin = time.monotonic()
        done = run("var_sweep", "many.yaml", ranks=arguments.ranks, timeout=7200)
        whole = time.monotonic() - begin
        folders = run_folders("many")
        check(len(folders) == arguments.runs and all(status(f)["state"] == "done" for f in folders),
              f"{len(folders)} run folders, expected {arguments.runs}, all done")
        found = re.search(r"([\d.]+) % of the ranks' time was given to runs, ([\d.]+) s of ([\d.]+) s", done.stderr)
        check(found, f"the launch does not say what was given to runs:\n{done.stderr[-2000:]}")
        in_runs, counted = float(found[2]), float(found[3])
        outside = 1 - in_runs / counted
        launch = 1 - in_runs / (whole * arguments.ranks)
        print(f"many_runs: {arguments.runs} runs on {arguments.ranks} ranks in {whole:.1f} s, "
              f"{in_runs / arguments.runs:.3f} s each: outside runs {100 * outside:.2f} % of the ranks' time, "
              f"{100 * launch:.2f} % with the launch's start and end", flush=True)
        check(outside < MOST_OUTSIDE, f"{100 * outside:.2f} % outside runs, expected less than {100 * MOST_OUTSIDE} %")


if __name__ == "__main__":
    main()
