"""Batch jobs on a real Slurm of two nodes (launch/local_slurm.sh): a limit, a requeue, a lost rank.

One job runs across both nodes; signalled as before its time limit it saves, leaves with 75, is queued again and
goes on; a rank that is killed costs a launch inside the allocation. In the end rows, weights and moments are
those of a sweep that nobody disturbed, bit for bit. Needs root and Slurm (launch/setup.sh --slurm).
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time

from support import (BIN, SOURCE, check, checkpoints, environment, make_images, make_tokens, require_same_run, run,
                     run_folders, scratch)

SWEEP = """
name: jobs
placement: whole
output: {output}
defaults:
  tokens: tokens.h5
  train: {{batch: 16, images: 32000, save_every_min: 0.005}}
runs:
  - {{model.depth: [1, 2]}}
"""
LIMIT_S = 240  # for whatever is waited for; no more than a stop for a test that hangs


@contextlib.contextmanager
def slurm(folder):
    script = SOURCE / "launch/local_slurm.sh"
    subprocess.run([script, "start", folder], check=True)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        yield
    finally:
        subprocess.run([script, "stop", folder], check=True)


def output_of(*line):
    return subprocess.run(line, text=True, capture_output=True, check=True).stdout


def write_sweep(output):
    path = pathlib.Path(f"{output}.yaml")
    path.write_text(SWEEP.format(output=output))
    return path.resolve()


def submit(output):
    """A job of one rank on each of both nodes; returns its number and the path of its log."""
    here = pathlib.Path.cwd()
    line = ["sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", f"--output={here}/job-%j.log",
            SOURCE / "launch/slurm/sweep.sbatch", write_sweep(output), "--set", f"output={here / output}",
            "--set", f"defaults.tokens={here}/tokens.h5"]
    own = environment(VARSCALE_HOME=str(SOURCE), VARSCALE_BIN=str(BIN), VARSCALE_RESTART_PAUSE_S="1")
    job = subprocess.run(list(map(str, line)), text=True, capture_output=True, check=True, env=own).stdout.strip()
    return job, here / f"job-{job}.log"


def state_of(job):
    found = re.search(r"JobState=(\w+)", output_of("scontrol", "show", "job", job))
    return found[1] if found else "gone"


def wait_until(condition, failure):
    end = time.monotonic() + LIMIT_S
    while not condition():
        check(time.monotonic() < end, failure())
        time.sleep(0.1)


def wait_for_checkpoint(output, depth, log):
    """Until the run of that depth is in training and has saved."""
    wait_until(lambda: any(checkpoints(run) for run in pathlib.Path(output, "runs").glob(f"d{depth}-*")),
               lambda: f"{output}: d{depth} has no checkpoint\n{log.read_text() if log.exists() else ''}")


def wait_for_end(job, log, expected):
    ended = {"COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT", "gone"}
    wait_until(lambda: state_of(job) in ended, lambda: f"job {job} is {state_of(job)}\n{log.read_text()}")
    check(state_of(job) == expected, f"job {job} ended {state_of(job)}, expected {expected}\n{log.read_text()}")


def launches(log):
    return re.findall(r"restart (\d+) of the job, launch (\d+): 2 ranks on (\S+)", log.read_text())


def rank_of(output):
    """The process number of one rank of the sweep with that output."""
    found = output_of("pgrep", "-f", f"^{BIN}/var_sweep .*output={pathlib.Path.cwd() / output}").split()
    check(len(found) == 2, f"{len(found)} ranks of {output}, expected 2")
    return int(found[1])


def main():
    with scratch("slurm") as folder, slurm(folder / "slurm"):
        make_images()
        make_tokens()
        run("var_sweep", write_sweep("calm"), ranks=2)

        job, log = submit("disturbed")
        wait_for_checkpoint("disturbed", 1, log)
        # What Slurm sends ten minutes before the limit (--signal=B:USR1@600).
        output_of("scancel", "--batch", "--signal=USR1", job)
        wait_until(lambda: len(launches(log)) == 2, lambda: f"job {job} was not queued again\n{log.read_text()}")
        wait_for_checkpoint("disturbed", 2, log)
        os.kill(rank_of("disturbed"), signal.SIGKILL)
        wait_for_end(job, log, "COMPLETED")
        check(launches(log) == [("0", "0", "n[1-2]"), ("1", "0", "n[1-2]"), ("1", "1", "n[1-2]")], log.read_text())
        for mine, theirs in zip(run_folders("disturbed"), run_folders("calm"), strict=True):
            require_same_run(mine, theirs, f"disturbed {mine.name}")
        print("slurm: two nodes; signalled, requeued, a rank killed, finished: equal to the bit")


if __name__ == "__main__":
    main()
