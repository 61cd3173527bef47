"""A run that fails on all ranks alike ends alone: the other runs of the sweep go on in the same launch."""

import json
import pathlib

from support import check, make_images, make_tokens, require_same_run, run, run_folders, scratch, status

SWEEP = """
name: soft
placement: whole
output: {output}
defaults:
  tokens: tokens.h5
  train: {{batch: 16, images: 160, max_skipped: 1}}
runs:
  - {{model.depth: 1, optimizer.lr: {lr}}}
  - {{model.depth: 2}}
"""


def sweep(output, lr):
    path = pathlib.Path(f"{output}.yaml")
    path.write_text(SWEEP.format(output=output, lr=lr))
    return path


def main():
    with scratch("soft"):
        make_images()
        make_tokens()
        run("var_sweep", sweep("calm", "1e-3"), ranks=2)
        broken = sweep("broken", "1e30")
        for failures in (1, 2, 3):
            done = run("var_sweep", broken, ranks=2, code=1)
            first, second = run_folders("broken")
            failed = status(first)
            check(failed["state"] == "failed" and failed["failures"] == failures, failed)
            check("training has diverged" in failed["reason"], failed["reason"])
            said = [line for line in done.stderr.splitlines() if "training has diverged" in line]
            check(len(said) == 1 and said[0].startswith(f"var_sweep: run {first.name} failed: "), done.stderr)
            check(status(second)["state"] == "done", status(second))
            require_same_run(second, run_folders("calm")[1], "the run after the failed one")
        # Then it is left alone, unless it is asked for.
        check("training has diverged" not in run("var_sweep", broken, ranks=2, code=1).stderr, "tried a fourth time")
        run("var_sweep", broken, "--retry-failed", ranks=2, code=1)
        check(status(first)["failures"] == 1, status(first))
        rows = json.loads(run("var_sweep", broken, "--status", "--json").stdout)["runs"]
        check([row["state"] for row in rows] == ["failed", "done"], rows)
        print("a failed run: the one after it is trained, equal to the bit; three attempts, more on demand")


if __name__ == "__main__":
    main()
