"""Branches of one trunk are the runs of their budgets: every row and weight of the run trained alone, to the bit."""

import json
import pathlib
import shutil
import signal
import subprocess
import time

import h5py
import numpy as np

from support import (BAD_INPUT, NOT_COMPARED, STOPPED, check, checkpoints, command, environment, make_images,
                     make_tokens, run, run_folders, scratch, state, status, tables)

SETTINGS = """
name: branches
defaults:
  tokens: tokens.h5
  train: {batch: 8, save_every_min: 0.001}
  schedule: {kind: wsd, warmup_images: 80, hold: 0.7, end: 0.05}
  model: {drop_path: 0.1}
  eval: {points: 6, max_cost: 100}
"""
SHARED = SETTINGS + "runs: [{model.depth: 2, branches: {train.images: [400, 800, 1600]}}]\n"
ALONE = SETTINGS + "runs: [{model.depth: 2, train.images: [400, 800, 1600]}]\n"
BEGINS = [35, 70, 140]  # 70 % of 50, 100, 200 steps


def require_same(branch, alone, begin, what):
    """All steps, the evaluations from the branch point on, weights and moments."""
    mine, theirs = tables(branch), tables(alone)
    for name, table in theirs.items():
        # The trunk has its own evaluations on the way.
        keep = [rows if name == "steps" else rows[rows["step"] > begin] for rows in (mine[name], table)]
        check(len(keep[0]) == len(keep[1]) > 0, f"{what}: /{name} has {len(keep[0])} rows, expected {len(keep[1])}")
        for column in set(table.dtype.names) - NOT_COMPARED:
            check(np.array_equal(keep[0][column], keep[1][column]), f"{what}: /{name} column {column} differs")
    at_begin = [rows["eval"][rows["eval"]["step"] == begin] for rows in (mine, theirs)]
    for column in set(at_begin[0].dtype.names) - NOT_COMPARED:
        check(len(at_begin[0]) == 1 and at_begin[0][column] == at_begin[1][column],
              f"{what}: the evaluation where the decay begins: {column}")
    mine, theirs = state(branch), state(alone)
    check(mine.keys() == theirs.keys(), f"{what}: other tensors")
    for name, tensor in theirs.items():
        check(np.array_equal(mine[name], tensor), f"{what}: tensor {name} differs")


def stop_in(branch, output):
    """Starts the sweep and stops it when the branch has a checkpoint of its own and is not done."""
    process = subprocess.Popen(command("var_sweep", "shared.yaml", "--set", f"output={output}", "--only", branch.name,
                                       ranks=1),
                               env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not checkpoints(branch):
        check(process.poll() is None, "the branch ended before it could be stopped")
        time.sleep(0.005)
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=120)
    check(process.returncode == STOPPED, f"SIGUSR1: {process.returncode}, expected 75\n{errors}")
    check(status(branch)["state"] == "stopped", status(branch))


def main():
    with scratch("branches"):
        make_images()
        make_tokens()
        pathlib.Path("shared.yaml").write_text(SHARED)
        pathlib.Path("alone.yaml").write_text(ALONE)
        run("var_sweep", "alone.yaml", "--set", "output=alone", ranks=1)
        run("var_sweep", "shared.yaml", "--set", "output=shared", ranks=1)
        trunk, *branches = run_folders("shared")
        check([b.name for b in branches] == [a.name for a in run_folders("alone")], "other ids")
        check(set(BEGINS) <= set(checkpoints(trunk)), f"the trunk keeps {sorted(checkpoints(trunk))}")
        for branch, alone, begin in zip(branches, run_folders("alone"), BEGINS, strict=True):
            require_same(branch, alone, begin, branch.name)
            with h5py.File(branch / "run.h5") as file:
                check(file.attrs["branch_of"] == trunk.name and file.attrs["branch_step"] == begin,
                      f"{branch.name}: says that it comes from {dict(file.attrs)}")
        print("branches: rows, weights and moments of three budgets equal those of the runs alone, to the bit")

        # The longest once more, stopped on the way and started again.
        last, expected = branches[-1], run_folders("alone")[-1]
        shutil.rmtree(last)
        stop_in(last, "shared")
        reached = status(last)["step"]
        check(BEGINS[-1] < reached < 200, f"stopped at step {reached}")
        run("var_sweep", "shared.yaml", "--set", "output=shared", ranks=1)
        require_same(last, expected, BEGINS[-1], "stopped and resumed")
        with h5py.File(last / "run.h5") as file:
            check(file.attrs["branch_of"] == trunk.name, "a resumed branch forgets its trunk")
        print(f"branches: stopped at step {reached} and resumed, the same")

        # A checkpoint of another run in the trunk's place is refused, and a missing one named.
        place = checkpoints(trunk)[BEGINS[0]]
        shutil.move(place, "kept")
        shutil.rmtree(branches[0])
        run("var_sweep", "shared.yaml", "--set", "output=shared", ranks=1, code=1)
        rows = json.loads(run("var_sweep", "shared.yaml", "--set", "output=shared", "--status", "--json").stdout)["runs"]
        check("its checkpoint of step 35 is gone" in rows[1]["reason"], rows[1])
        shutil.copytree(checkpoints(branches[1])[100], place)
        done = run("var_sweep", "shared.yaml", "--set", "output=shared", ranks=1, code=BAD_INPUT)
        check("is a checkpoint of another configuration" in done.stderr, done.stderr)
        shutil.rmtree(place)
        shutil.move("kept", place)
        run("var_sweep", "shared.yaml", "--set", "output=shared", ranks=1)
        require_same(branches[0], run_folders("alone")[0], BEGINS[0], "after a trunk that was not the planned one")
        print("branches: another run's checkpoint is refused, a missing one named")


if __name__ == "__main__":
    main()
