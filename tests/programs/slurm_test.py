"""Batch jobs on a real Slurm of two nodes (launch/local_slurm.sh): limits, requeues, lost ranks, lost nodes.

- One job across both nodes, signalled as before its time limit: it saves, leaves with 75, is queued again and goes
  on; a rank that is killed costs a launch inside the allocation.
- A job that is cancelled loses the time since its last save; the next one goes on.
- Two tasks of an array share one sweep and train no run twice.
- step_per_run: each run a launch of its own; a rank that is killed costs its run a launch, the others nothing.
- A node that goes down: the launch starts again on the other, in the same allocation.

All but the last, whose number of ranks changes, end with the rows, weights and moments of a sweep that nobody
disturbed, bit for bit. Needs root and Slurm (launch/setup.sh --slurm).
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time

from support import (BIN, SOURCE, check, checkpoints, environment, make_images, make_tokens, require_same_run, run,
                     run_folders, scratch, status, tables)

SWEEP = """
name: jobs
placement: whole
output: {output}
defaults:
  tokens: tokens.h5
  train: {{batch: 16, images: 9600, save_every_min: 0.005}}
runs:
  - {runs}
"""
TWO_DEPTHS = "{model.depth: [1, 2]}"
ONE_DEPTH = "{model.depth: 1}"
FOUR_SEEDS = "{model.depth: 1, train.seed: [0, 1, 2, 3]}"
LIMIT_S = 240  # for whatever is waited for; no more than a stop for a test that hangs


@contextlib.contextmanager
def slurm(folder):
    script = SOURCE / "launch/local_slurm.sh"
    subprocess.run([script, "start", folder], check=True)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        yield
    finally:
        subprocess.run(["scancel", "--user=root"], check=False)
        subprocess.run([script, "stop", folder], check=True)


def output_of(*line):
    return subprocess.run(line, text=True, capture_output=True, check=True).stdout


def write_sweep(output, runs):
    path = pathlib.Path(f"{output}.yaml")
    path.write_text(SWEEP.format(output=output, runs=runs))
    return path.resolve()


def submit(output, runs, *options, script="sweep", **extra):
    """A job of one rank on each of both nodes, unless the options say otherwise; returns its number."""
    here = pathlib.Path.cwd()
    line = ["sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", f"--output={here}/job-%A_%a.log", *options,
            SOURCE / f"launch/slurm/{script}.sbatch", write_sweep(output, runs), "--set", f"output={here / output}",
            "--set", f"defaults.tokens={here}/tokens.h5"]
    own = environment(VARSCALE_HOME=str(SOURCE), VARSCALE_BIN=str(BIN), VARSCALE_RESTART_PAUSE_S="1", **extra)
    return subprocess.run(list(map(str, line)), text=True, capture_output=True, check=True, env=own).stdout.strip()


def log_of(job):
    """What the job has written so far, all tasks of an array."""
    return "".join(path.read_text() for path in sorted(pathlib.Path.cwd().glob(f"job-{job}_*.log")))


def states_of(job):
    return set(re.findall(r"JobState=(\w+)", output_of("scontrol", "show", "job", job)))


def state_of_slurm():
    """Jobs, nodes, and what the daemons wrote last: for a failure far from this machine."""
    logs = pathlib.Path(os.environ["SLURM_CONF"]).parent / "log"
    tails = [f"{path.name}:\n" + "\n".join(path.read_text().splitlines()[-25:]) for path in sorted(logs.glob("*.log"))]
    alive = subprocess.run(["pgrep", "-a", "slurm|munged"], text=True, capture_output=True, check=False).stdout
    return "\n".join([output_of("squeue"), output_of("sinfo", "-N", "-o", "%N %t %E"), "daemons:\n" + alive, *tails, ""])


def wait_until(condition, failure):
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() >= end:
            check(False, failure() + state_of_slurm())
        time.sleep(0.1)


def wait_for_checkpoint(job, output, depth):
    """Until a run of that depth is in training and has saved."""
    wait_until(lambda: any(checkpoints(run) for run in pathlib.Path(output, "runs").glob(f"d{depth}-*")),
               lambda: f"{output}: d{depth} has no checkpoint\n{log_of(job)}")


def wait_for_end(job, expected="COMPLETED"):
    at_work = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED"}
    wait_until(lambda: not states_of(job) & at_work, lambda: f"job {job} is {states_of(job)}\n{log_of(job)}")
    check(states_of(job) == {expected}, f"job {job} ended {states_of(job)}, expected {expected}\n{log_of(job)}")


def launches(job):
    """(restart of the job, launch, ranks, nodes) of each launch by sweep.sbatch or array.sbatch."""
    return re.findall(r"restart (\d+) of the job, launch (\d+): (\d+) ranks on (\S+)", log_of(job))


def ranks_of(output, expected):
    """The process numbers of the ranks of the sweep with that output."""
    found = output_of("pgrep", "-f", f"^{BIN}/var_sweep .*output={pathlib.Path.cwd() / output}").split()
    check(len(found) == expected, f"{len(found)} ranks of {output}, expected {expected}")
    return list(map(int, found))


def claims_of(folder):
    """The jobs that have held a run, in order."""
    paths = [path for path in (folder / "claims").iterdir() if not path.suffix]
    return [json.loads(path.read_text()) for path in sorted(paths, key=lambda path: int(path.name[len("claim-"):]))]


def segments(folder):
    return len(set(tables(folder)["steps"]["segment"]))


def require_same(mine, theirs):
    for folder, expected in zip(run_folders(mine), run_folders(theirs), strict=True):
        require_same_run(folder, expected, f"{mine} {folder.name}")


def limit_and_lost_rank():
    job = submit("disturbed", TWO_DEPTHS)
    wait_for_checkpoint(job, "disturbed", 1)
    # What Slurm sends ten minutes before the limit (--signal=B:USR1@600).
    output_of("scancel", "--batch", "--signal=USR1", job)
    wait_until(lambda: len(launches(job)) == 2, lambda: f"job {job} was not queued again\n{log_of(job)}")
    wait_for_checkpoint(job, "disturbed", 2)
    os.kill(ranks_of("disturbed", 2)[1], signal.SIGKILL)
    wait_for_end(job)
    both = ("2", "n[1-2]")
    check(launches(job) == [("0", "0", *both), ("1", "0", *both), ("1", "1", *both)], log_of(job))
    require_same("disturbed", "calm")
    print("two nodes; signalled, queued again, a rank killed, finished: equal to the bit")


def cancelled():
    first = submit("cancelled", ONE_DEPTH)
    wait_for_checkpoint(first, "cancelled", 1)
    output_of("scancel", first)
    second = submit("cancelled", ONE_DEPTH)
    wait_for_end(second)
    check(states_of(first) == {"CANCELLED"}, f"job {first} is {states_of(first)}")
    (folder,) = run_folders("cancelled")
    check([claim["slurm_job"] for claim in claims_of(folder)] == [first, second], f"{claims_of(folder)}")
    require_same_run(folder, run_folders("calm")[0], f"cancelled {folder.name}")
    print("cancelled, a new job went on from its checkpoint: equal to the bit")


def array():
    job = submit("shared", FOUR_SEEDS, "--array=0-1", "--nodes=1", script="array")
    wait_for_end(job)
    holders = []
    for folder in run_folders("shared"):
        # A claim after the first may be of a job that then saw the run done.
        check(segments(folder) == 1, f"{folder} was trained twice\n{log_of(job)}")
        holders.append(claims_of(folder)[0]["slurm_job"])
    check(len(set(holders)) == 2, f"the runs were held by {holders}, expected two jobs\n{log_of(job)}")
    require_same("shared", "calm_seeds")
    print("two tasks of an array, four runs, none trained twice: equal to the bit")


def step_per_run():
    job = submit("steps", FOUR_SEEDS, script="step_per_run", VARSCALE_RANKS_PER_RUN="1")
    wait_for_checkpoint(job, "steps", 1)
    victim = ranks_of("steps", 2)[0]
    command = pathlib.Path(f"/proc/{victim}/cmdline").read_bytes().split(b"\0")
    hit = command[command.index(b"--only") + 1].decode()
    os.kill(victim, signal.SIGKILL)
    wait_for_end(job)
    for folder in run_folders("steps"):
        check(folder.name == hit or segments(folder) == 1, f"{folder} was disturbed\n{log_of(job)}")
        started = re.findall(rf"{folder.name}: launch (\d) on (n[12]:1)", log_of(job))
        check([number for number, _ in started] == (["0", "1"] if folder.name == hit else ["0"]), log_of(job))
    check({node for _, node in re.findall(r"launch (\d) on (\S+)", log_of(job))} == {"n1:1", "n2:1"}, log_of(job))
    require_same("steps", "calm_seeds")
    print("a launch for each of four runs, one rank killed: the others undisturbed, all equal to the bit")


def lost_node():
    job = submit("lost", ONE_DEPTH)
    wait_for_checkpoint(job, "lost", 1)
    output_of("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    wait_for_end(job)
    check(launches(job) == [("0", "0", "2", "n[1-2]"), ("0", "1", "1", "n1:1")], log_of(job))
    check(all(status(folder)["state"] == "done" for folder in run_folders("lost")), log_of(job))
    print("a node went down: the same job went on with the other")


CASES = (limit_and_lost_rank, cancelled, array, step_per_run, lost_node)


def main():
    with scratch("slurm") as folder, slurm(folder / "slurm"):
        make_images()
        make_tokens()
        run("var_sweep", write_sweep("calm", TWO_DEPTHS), ranks=2)
        run("var_sweep", write_sweep("calm_seeds", FOUR_SEEDS), ranks=1)
        for case in CASES:
            begin = time.monotonic()
            case()
            print(f"  ({case.__name__}: {time.monotonic() - begin:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
