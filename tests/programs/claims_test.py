"""Several jobs on one sweep folder: each run is trained by one of them, and every result is that of one job alone.

Two launches share the runs. One is frozen in the middle of a run, and another takes it over; what the frozen one
does when it wakes up reaches nothing. Then launches are frozen and woken at random. Rows, weights and moments are
compared to the bit.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import time

import h5py
import numpy as np

from support import (DONE, STOPPED, check, checkpoints, command, descendants, environment, make_images,
                     make_tokens, require_same_run, run, run_folders, scratch, status, tables, with_chance)

SWEEP = """
name: shared
placement: whole
defaults:
  tokens: tokens.h5
  train: {batch: 8, images: %d, save_every_min: 0.003}
  eval: {points: 4}
runs:
  - {model.depth: 2, train.seed: [%s]}
"""
LIMIT_S = 120  # for whatever is waited for; no more than a stop for a test that hangs


class Launch:
    def __init__(self, sweep, output, *args, ranks=0):
        self.process = subprocess.Popen(command("var_sweep", sweep, "--set", f"output={output}", *args, ranks=ranks),
                                        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        text=True)

    def signal_all(self, number):
        for pid in descendants(self.process.pid):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def freeze(self):
        self.signal_all(signal.SIGSTOP)

    def wake(self):
        self.signal_all(signal.SIGCONT)

    def end(self, *codes):
        _, errors = self.process.communicate(timeout=LIMIT_S)
        check(self.process.returncode in codes, f"ended with {self.process.returncode}, expected {codes}\n{errors}")
        return errors

    def until(self, what, condition):
        end = time.monotonic() + LIMIT_S
        while not condition():
            check(self.process.poll() is None, f"the launch ended before {what}")
            check(time.monotonic() < end, f"waited in vain until {what}")
            time.sleep(0.01)


def claims(folder):
    """The claims on the run, in turn."""
    epochs = sorted(int(path.name.removeprefix("claim-")) for path in folder.glob("claims/claim-*")
                    if path.name.removeprefix("claim-").isdigit())
    return [json.loads((folder / f"claims/claim-{epoch}").read_text()) for epoch in epochs]


def owners(folder):
    """The nonces of the jobs that have claimed the run, in turn."""
    return [claim["job"] for claim in claims(folder)]


def folders(output):
    return sorted(pathlib.Path(output, "runs").glob("d*"))


def require_one_history(folder, segments=None):
    """The run's file tells of one training from its first step to its last."""
    with h5py.File(folder / "run.h5", "r") as file:
        check(segments in (None, file.attrs["segments"]),
              f"{folder}: {file.attrs['segments']} segments, expected {segments}")
        check(file.attrs["complete"] == 1, f"{folder}: not complete")
    steps = tables(folder)["steps"]
    check(np.array_equal(steps["step"], np.arange(1, len(steps) + 1)), f"{folder}: steps {steps['step']}")
    check(status(folder)["state"] == "done", f"{folder}: {status(folder)}")


def nothing_left(output):
    """No trace of a job but the claims."""
    left = [str(path) for place in ("jobs", "attempts") for path in pathlib.Path(output, place).iterdir()]
    left += [str(path) for path in pathlib.Path(output).rglob("*.tmp-*")]
    check(not left, f"left behind: {left}")


def share(sweep, calm):
    """The first launch sleeps in its first run, and the second does the others; then the first goes on."""
    first = Launch(sweep, "shared")
    first.until("it trains", lambda: any(checkpoints(folder) for folder in folders("shared")))
    first.freeze()
    second = Launch(sweep, "shared")
    others = len(calm) - 1

    def done():
        return sum((folder / "status.json").exists() and status(folder)["state"] == "done"
                   for folder in folders("shared"))

    second.until("it has trained the other runs", lambda: done() == others)
    first.wake()
    ends = [first.process.wait(LIMIT_S), second.process.wait(LIMIT_S)]
    first.end(DONE)
    said = second.end(DONE, STOPPED)
    check((second.process.returncode == STOPPED) == ("is left to job" in said), f"{ends}: {said}")
    jobs = set()
    for mine, expected in zip(run_folders("shared"), calm, strict=True):
        require_one_history(mine, 1)
        require_same_run(mine, expected, f"shared {mine.name}")
        check(len(owners(mine)) == 1, f"{mine}: claimed by {owners(mine)}")
        jobs.update(owners(mine))
    check(len(jobs) == 2, f"{len(jobs)} jobs have trained, expected 2")
    nothing_left("shared")
    run("var_sweep", sweep, "--set", "output=shared")  # and all is done
    print(f"claims: two launches share {len(calm)} runs, exit codes {ends}")


def together(sweep, calm):
    """Two launches from the start, undisturbed."""
    launches = [Launch(sweep, "together"), Launch(sweep, "together")]
    ends = [launch.process.wait(LIMIT_S) for launch in launches]
    for launch in launches:
        launch.end(DONE, STOPPED)
    check(DONE in ends, f"exit codes {ends}: one of them ended last, when all was done")
    for mine, expected in zip(run_folders("together"), calm, strict=True):
        require_one_history(mine, 1)
        require_same_run(mine, expected, f"together {mine.name}")
    nothing_left("together")


def frozen(sweep, calm, wakes_up_during):
    """The first launch sleeps in a run; the second takes it over; the first wakes up when that is done, or before."""
    output = "during" if wakes_up_during else "after"
    expiry = ("--claim-expiry", "1")
    first = Launch(sweep, output, *expiry)
    first.until("it trains", lambda: any(checkpoints(folder) for folder in folders(output)))
    first.freeze()
    asleep_in = next(folder for folder in folders(output) if checkpoints(folder))
    before = max(checkpoints(asleep_in))
    second = Launch(sweep, output, *expiry)
    if wakes_up_during:
        second.until("it goes on with the run", lambda: len(owners(asleep_in)) == 2 and
                     max(checkpoints(asleep_in), default=0) > before + 1)
        second_at_work = second.process.poll() is None
        first.wake()
        said = first.end(DONE, STOPPED)
        if second.process.poll() is None:
            check(first.process.returncode == STOPPED, f"ended with 0 while another trains\n{said}")
            check("is left to job" in said, said)
        check(second_at_work, "the second launch was done before the first woke up")
        second.end(DONE)
    else:
        second.end(DONE)
        first.wake()
        said = first.end(DONE)
    check(f"run {asleep_in.name} was taken over by another job" in said, said)
    check(len(set(owners(asleep_in))) == 2, f"{asleep_in}: claimed by {owners(asleep_in)}")
    for mine, expected in zip(run_folders(output), calm, strict=True):
        require_one_history(mine, 2 if mine == asleep_in else 1)
        require_same_run(mine, expected, f"{output} {mine.name}")
    nothing_left(output)
    print(f"claims: taken over from a frozen launch, which wakes up {output} and ends with {first.process.returncode}")


def at_random(sweep, calm, ranks, rounds, chance):
    """Two launches at a time, now this one frozen and now that one, until all is done."""
    freezes = takeovers = 0
    for number in range(rounds):
        output = f"random-{ranks}-{number}"
        launches, in_round = [], 0
        while True:
            states = [status(folder)["state"] for folder in folders(output) if (folder / "status.json").exists()]
            if len(states) == len(calm) and set(states) == {"done"}:
                break
            for _ in range(2 - sum(launch.process.poll() is None for launch in launches)):
                launches.append(Launch(sweep, output, "--claim-expiry", "1", ranks=ranks))
            time.sleep(chance.uniform(0, 0.3))
            at_work = {claims(folder)[-1]["pid"] for folder in folders(output)
                       if claims(folder) and list(folder.glob("checkpoints/step-*")) and status(folder)["state"] != "done"}
            training = [launch for launch in launches
                        if launch.process.poll() is None and at_work & set(descendants(launch.process.pid))]
            if training and in_round < 5:
                sleeper = chance.choice(training)
                sleeper.freeze()
                time.sleep(chance.uniform(0, 4))
                sleeper.wake()
                in_round += 1
        freezes += in_round
        for launch in launches:
            launch.end(DONE, STOPPED)
        for mine, expected in zip(run_folders(output), calm, strict=True):
            require_one_history(mine)
            require_same_run(mine, expected, f"{output} {mine.name}")
            takeovers += len(owners(mine)) - 1
        nothing_left(output)
    print(f"claims: {max(1, ranks)} ranks: {freezes} freezes at random in {rounds} sweeps, {takeovers} runs taken over")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1, help="sweeps with freezes at random, at each of 1 and 2 ranks")
    arguments, chance = with_chance(parser, "claims")
    begin = time.monotonic()
    with scratch("claims"):
        make_images()
        make_tokens()
        several, alone = pathlib.Path("several.yaml"), pathlib.Path("alone.yaml")
        several.write_text(SWEEP % (480, "0, 1, 2"))
        alone.write_text(SWEEP % (1600, "0"))
        for sweep in (several, alone):
            run("var_sweep", sweep, "--set", f"output=calm-{sweep.stem}")
        share(several, run_folders("calm-several"))
        together(several, run_folders("calm-several"))
        frozen(several, run_folders("calm-several"), wakes_up_during=False)
        frozen(alone, run_folders("calm-alone"), wakes_up_during=True)
        for ranks in (0, 2):
            if arguments.rounds == 0:
                break
            run("var_sweep", several, "--set", f"output=calm-{ranks}", ranks=ranks)
            at_random(several, run_folders(f"calm-{ranks}"), ranks, arguments.rounds, chance)
    print(f"claims: {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
