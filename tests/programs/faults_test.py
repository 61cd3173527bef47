"""One rank of a launch fails: all processes end in time, one sentence says why, and nothing is lost.

Launch after launch of fault_run (tests/faults) goes on with one run and meets one fault each, in the
middle of writing a checkpoint. Every process must be gone within a fixed time, and within the deadline of
a collective where that is what the others notice; the launch must have the right exit code and one first
error that names the rank; the newest checkpoint must be whole, and the next launch go on from it. In the
end rows, weights and moments must be those of a run that nobody disturbed, bit for bit.
"""

import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import numpy as np

from support import (BIN, check, checkpoints, command, environment, is_alive, require_same_run, run,
                     scratch, tables)

PROGRAM = BIN.parent / "tests/fault_run"
DEADLINE_S = 2  # of a collective, for the faults that are noticed by it
LONG_DEADLINE_S = 300  # for the others
# For processes to end once the others know: questions to ranks that do not answer (2 s each time),
# SIGTERM and SIGKILL by the launcher (1 s each, see support.environment), and a loaded machine.
ALLOWANCE_S = 20
START_S = 120  # until the fault strikes; no more than a stop for a test that hangs

# Fault: exit code, who speaks, and what must be said once. {rank}: the one that failed.
CALL = r"(?:all_reduce|reduce_scatter|all_gather|broadcast|barrier) .*'.*'"
WAITED = rf"rank \d+ has waited {DEADLINE_S} s in call \d+, {CALL}: "
FAULTS = {
    "throw": (1, "rank", r"rank {rank}: a fault before step {step}"),
    "all-throw": (1, "rank", r"rank \d+: a fault before step {step}"),
    "exit": (3, "mpirun", r"Process name: \[\[\d+,1\],{rank}\]\s+Exit code: +3"),
    "kill": (137, "mpirun", r"process rank {rank} with PID \d+ on node \S+ exited on\s+signal 9"),
    "stall": (1, "rank", WAITED + rf"(?:.*; )?rank {{rank}} has finished call \d+, {CALL}"),
    "freeze": (1, "rank", WAITED + r"(?:.*; )?rank {rank} does not answer"),
    "mismatch": (1, "rank", r"rank \d+: the ranks differ in call \d+: .*"
                            r"rank {rank} calls all_reduce sum Float\[3\] 'another call'"),
}
BY_DEADLINE = {"stall", "freeze"}

# Ranks, options of the mode, the rank that fails, how. The first rank has the records and publishes
# checkpoints. In groups of two a rank waits for another that waits for the one that is missing.
LAYOUTS = [(2, ["--mode", "replicated"], 1, [fault for fault in FAULTS if fault != "freeze"]),
           (3, ["--mode", "zero3"], 0, list(FAULTS)),
           (4, ["--mode", "hybrid", "--shards", 2], 3, ["stall"])]

SENTENCE = re.compile(r"^(?:rank \d+(?::| has waited )|fault_run:).*$", re.MULTILINE)


def wait_until(condition, seconds, failure):
    end = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < end, failure())
        time.sleep(0.01)


def strike(folder, fault, ranks, mode, culprit):
    """A launch that fails. Returns the step before which it did, the exit code, stderr, and how long its
    processes then lived."""
    errors, struck = pathlib.Path(folder, f"{fault}.err"), pathlib.Path(folder, "struck")
    struck.unlink(missing_ok=True)
    errors.parent.mkdir(exist_ok=True)
    deadline = DEADLINE_S if fault in BY_DEADLINE else LONG_DEADLINE_S
    with open(errors, "w") as file:
        process = subprocess.Popen(
            command(PROGRAM, folder, *mode, "--fault", fault, "--rank", culprit,
                    "--deadline", deadline, ranks=ranks),
            env=environment(), stdout=subprocess.DEVNULL, stderr=file)
    wait_until(lambda: struck.exists() or process.poll() is not None, START_S,
               lambda: f"{ranks} ranks, {fault}: no fault in {START_S} s")
    begin = time.monotonic()
    check(struck.exists(), f"{ranks} ranks, {fault}: the launch ended before it, with {process.returncode}\n"
                           f"{errors.read_text()}")
    everyone = [int(pathlib.Path(folder, f"pid-{rank}").read_text()) for rank in range(ranks)]
    limit = ALLOWANCE_S + (deadline if fault in BY_DEADLINE else 0)
    try:
        wait_until(lambda: process.poll() is not None and not any(map(is_alive, everyone)), limit,
                   lambda: f"{ranks} ranks, {fault}: after {limit} s not all have ended of mpirun "
                           f"{process.pid} and the ranks {everyone}\n{errors.read_text()}")
    finally:
        for pid in filter(is_alive, [process.pid, *everyone]):
            os.kill(pid, signal.SIGKILL)
    return int(struck.read_text()), process.returncode, errors.read_text(), time.monotonic() - begin


def require_one_error(what, fault, step, culprit, code, errors):
    expected_code, speaker, pattern = FAULTS[fault]
    check(code == expected_code, f"{what}: exit code {code}, expected {expected_code}\n{errors}")
    said = SENTENCE.findall(errors)
    expected = 1 if speaker == "rank" else 0
    check(len(said) == expected, f"{what}: {len(said)} ranks have spoken, expected {expected}\n{errors}")
    pattern = pattern.format(rank=culprit, step=step)
    found = re.findall(pattern, said[0] if said else errors)
    check(len(found) == 1, f"{what}: no sentence fits {pattern!r}\n{errors}")
    return said[0] if said else f"mpirun: {re.search(pattern, errors)[0]}"


def require_whole(checkpoint):
    """Every file that the manifest names has its size and checksum, and every row of a tensor is there."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    for name, facts in manifest["files"].items():
        content = (checkpoint / name).read_bytes()
        check(len(content) == facts["bytes"], f"{checkpoint}/{name}: {len(content)} bytes of {facts['bytes']}")
        check(hashlib.sha256(content).hexdigest() == facts["sha256"], f"{checkpoint}/{name}: other contents")
    rows = {}
    for entry in manifest["tensors"]:
        held = rows.setdefault(entry["name"], np.zeros(entry["shape"][entry["axis"]], int))
        held[slice(*entry["rows"])] += 1
    check(rows and all((held == 1).all() for held in rows.values()), f"{checkpoint}: rows missing or twice")
    return manifest


def survives(folder, fault, ranks, mode, culprit):
    """Returns the step that the next launch goes on from."""
    what = f"{ranks} ranks, {mode[1]}, {fault}"
    step, code, errors, seconds = strike(folder, fault, ranks, mode, culprit)
    sentence = require_one_error(what, fault, step, culprit, code, errors)
    saved = folder / "run/checkpoints"
    complete = checkpoints(folder / "run")
    newest = max(complete)
    check(0 < newest <= step, f"{what}: a checkpoint of step {newest}, the fault came before {step}")
    check(require_whole(complete[newest])["step"] == newest, f"{what}: a manifest of another step")
    unfinished = set(saved.iterdir()) - set(complete.values())
    if fault in {"exit", "kill"}:  # ranks that can do so remove it on their way out
        check(unfinished, f"{what}: no checkpoint was being written")
    print(f"faults: {what}: all gone after {seconds:.1f} s with {code}; step {newest} of {step} is safe, "
          f"{len(unfinished)} checkpoint unfinished; {' '.join(sentence.split())}", flush=True)
    return newest


def main():
    with scratch("faults"):
        for ranks, mode, culprit, faults in LAYOUTS:
            what = f"{ranks} ranks, {mode[1]}"
            calm, folder = pathlib.Path(f"calm-{ranks}"), pathlib.Path(f"struck-{ranks}")
            run(PROGRAM, calm, *mode, ranks=ranks)
            begins = [1 + survives(folder, fault, ranks, mode, culprit) for fault in faults]
            run(PROGRAM, folder, *mode, ranks=ranks)
            require_same_run(folder / "run", calm / "run", what)
            steps = tables(folder / "run")["steps"]
            found = [int(steps["step"][steps["segment"] == n].min()) for n in sorted(set(steps["segment"]))]
            check(found == [1, *begins], f"{what}: the launches began with steps {found}, expected {begins}")
            check(set((folder / "run/checkpoints").iterdir()) == set(checkpoints(folder / "run").values()),
                  f"{what}: an unfinished checkpoint is left")
            print(f"faults: {what}: rows, weights and moments are equal to the bit", flush=True)


if __name__ == "__main__":
    main()
