"""What the program tests share: starting programs, small inputs, reading what a run has left.

The programs lie in VARSCALE_BIN and the sources in VARSCALE_SOURCE, as CTest sets them.
"""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings

import h5py
import numpy as np
import safetensors.numpy

SOURCE = pathlib.Path(os.environ.get("VARSCALE_SOURCE", pathlib.Path(__file__).parents[2])).resolve()
BIN = pathlib.Path(os.environ.get("VARSCALE_BIN", SOURCE / "build/release/bin")).resolve()
DONE, BAD_INPUT, STOPPED = 0, 2, 75

# What differs between two launches of one run at one layout: counts of starts, wall times, memory.
NOT_COMPARED = {"segment", "step_s", "busy_min_s", "busy_max_s", "slowest_rank", "data_wait_s", "comm_wait_s",
                "memory_bytes", "tokens_per_s", "tflops", "mfu", "eval_s"}


def check(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


@contextlib.contextmanager
def scratch(name):
    """A folder that becomes the current one; removed afterwards unless the test fails."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"varscale-{name}-"))
    before = pathlib.Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    except BaseException:
        print(f"the files of the failed test are kept in {folder}", file=sys.stderr)
        raise
    finally:
        os.chdir(before)
    shutil.rmtree(folder)


def command(program, *args, ranks=0):
    """ranks 0: without a launcher."""
    line = [str(BIN / program), *map(str, args)]
    return [str(SOURCE / "launch/mpirun.sh"), "-n", str(ranks), *line] if ranks else line


def environment(**extra):
    # MPI's own files go to the scratch folder, so that killed launches leave nothing behind.
    here = os.getcwd()
    own = {"OMP_NUM_THREADS": "1", "VARSCALE_GRACE_S": "1", "TMPDIR": here,
           "OMPI_MCA_btl_vader_backing_directory": here}
    return os.environ | own | extra


def run(program, *args, ranks=0, code=DONE, env=None, timeout=600):
    """Runs to the end; returns the finished process, with its output as text."""
    line = command(program, *args, ranks=ranks)
    done = subprocess.run(line, env=environment(**(env or {})), text=True, capture_output=True,
                          timeout=timeout, check=False)
    check(code is None or done.returncode == code,
          f"{' '.join(line)}\nended with {done.returncode}, expected {code}\n{done.stdout}{done.stderr}")
    return done


def listing(folder="."):
    """Every file with its size and time; what MPI itself keeps in its session folder aside."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in pathlib.Path(folder).rglob("*") if path.is_file() and "ompi." not in str(path)}


class Cases:
    """Mistakes, and what was said about each."""

    def __init__(self):
        self.said, self.failed = [], []  # (mistake, sentence) of those that passed

    def refuses(self, what, command, pattern, ranks=0, env=None, untouched="."):
        """The program must say one sentence that fits `pattern` and write nothing below `untouched`."""
        before = listing(untouched)
        done = run(*command, ranks=ranks, code=None, env=env, timeout=120)
        program = command[0]
        # The plan's table may come before it, and mpirun has its own words about an exit code.
        said = [line for line in done.stderr.splitlines() if line.startswith(f"{program}: ")]
        faults = []
        if done.returncode != BAD_INPUT:
            faults.append(f"exit code {done.returncode}")
        if len(said) != 1:
            faults.append(f"{len(said)} sentences")
        if not any(re.search(pattern, line) for line in said):
            faults.append(f"does not match {pattern!r}")
        after = listing(untouched)
        if before != after:
            faults.append(f"touched {sorted(name for name in before | after if before.get(name) != after.get(name))}")
        if faults:
            self.failed.append(f"{what}: {', '.join(faults)}\n    {done.stderr.strip()}")
        else:
            self.said.append((what, said[0]))

    def end(self):
        if self.failed:
            sys.exit("\n".join(["FAILED:", *self.failed, f"{len(self.failed)} failed, {len(self.said)} passed"]))


TINY_TOKENIZER = """
model: {image_side: 16, channels: 16, channel_mult: [1, 1, 2], groups: 4, code_width: 8,
        vocabulary: 64, scales: [%s], phis: 2}
train: {steps: 40, batch: 8}
codebook: {start_step: 5, kmeans_images: 32}
"""


def with_chance(parser, name):
    """The arguments of a test of random instants, and its random numbers; their seed is printed and can be given."""
    parser.add_argument("--seed", type=int, default=None, help="of the instants; default: drawn")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    print(f"{name}: seed {seed}", flush=True)
    return arguments, random.Random(seed)


def make_images(folder="images", train=96, val=24, side=16):
    run("var_data", "synth", "--out", folder, "--train", train, "--val", val, "--side", side)


def make_tokens(name="tokens", scales="1, 2, 4", images="images", seed=0):
    """NAME.safetensors, NAME.h5: 96 training images of a few tokens, by a tokenizer of 40 steps."""
    settings = pathlib.Path(f"{name}.yaml")
    settings.write_text(TINY_TOKENIZER % scales)
    run("var_tokenizer", "train", settings, "--images", f"{images}/train", "--out",
        f"{name}.safetensors", "--set", f"train.seed={seed}")
    run("var_data", "tokenize", "--train", f"{images}/train", "--val", f"{images}/val",
        "--tokenizer", f"{name}.safetensors", "--out", f"{name}.h5")


def run_folders(sweep):
    """The folders of the sweep's runs, in the order of its plan."""
    plan = json.loads((pathlib.Path(sweep) / "plan.json").read_text())
    return [pathlib.Path(sweep) / "runs" / run["id"] for run in plan["runs"]]


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid):
    """All living processes below pid, which comes first."""
    found = [pid]
    for parent in found:
        for task in pathlib.Path(f"/proc/{parent}/task").glob("*"):
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                pass
    return found


def ranks_of(process, program):
    """The processes of this program below a launcher."""
    found = []
    for pid in descendants(process.pid):
        try:
            if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == program:
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def kill(process, doomed=()):
    """SIGKILL to these processes, by default to the launcher and all below it; returns when all are gone."""
    everyone = descendants(process.pid)
    for pid in doomed or everyone:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.communicate(timeout=60)
    while any(map(is_alive, everyone)):
        time.sleep(0.005)


def groups_done(out):
    """How many groups of images `var_sample` has drawn for this output so far."""
    return len(list(pathlib.Path(f"{out}.part").glob("group-*.u8")))


def wait_for_groups(process, out, groups):
    """Until so many groups are done; False if the process ended before."""
    while groups_done(out) < groups:
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return True


def status(folder):
    return json.loads((folder / "status.json").read_text())


def scalars(folder):
    """What TensorBoard reads beside a run.h5: {tag: ([steps], [values])}."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    run_file = (folder / "run.h5").resolve()
    events = EventAccumulator(str(run_file.parent), size_guidance={"scalars": 0})
    events.Reload()
    read = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    return {tag: ([row.step for row in rows], [row.value for row in rows]) for tag, rows in read.items()}


def require_scalars(folder):
    """The event file has every row of run.h5 once, in float32."""
    found, rows = scalars(folder), tables(folder)
    for table, prefix, columns in (("steps", "train", ["loss_mean", "loss_tail", "err_mean", "lr", "grad_norm"]),
                                   ("eval", "eval", ["loss_mean", "loss_tail", "err_mean"])):
        for column in columns:
            steps, values = found[f"{prefix}/{column}"]
            check(steps == rows[table]["step"].tolist(), f"{folder}: {prefix}/{column} has the steps {steps}")
            check(np.array_equal(np.float32(values), rows[table][column].astype(np.float32), equal_nan=True),
                  f"{folder}: {prefix}/{column} differs from /{table}")
    check(found["rates/images_per_s"][0] == rows["steps"]["step"].tolist(), f"{folder}: rates are missing")


def tables(folder):
    """The tables of a run as NumPy arrays with named columns."""
    with h5py.File(folder / "run.h5", "r") as file:
        return {name: file[name][:] for name in ("steps", "eval", "scales")}


def checkpoints(folder):
    """The complete checkpoints of a run by step. What a kill leaves under a temporary name is none."""
    return {int(path.parent.name.removeprefix("step-")): path.parent
            for path in sorted((folder / "checkpoints").glob("step-*/manifest.json"))
            if ".tmp" not in path.parent.name}


def newest_checkpoint(folder):
    complete = checkpoints(folder)
    return complete[max(complete)]


def state(folder):
    """Weights (param.*) and optimiser moments of the newest checkpoint, put together from all ranks' files."""
    checkpoint = newest_checkpoint(folder)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    files = {path.name: safetensors.numpy.load_file(path) for path in checkpoint.glob("rank-*.safetensors")}
    whole = {}
    for entry in manifest["tensors"]:
        tensor = whole.setdefault(entry["name"], np.full(entry["shape"], np.nan, np.float32))
        begin, end = entry["rows"]
        tensor[(slice(None),) * entry["axis"] + (slice(begin, end),)] = files[entry["file"]][entry["name"]]
    return whole


def require_same_run(folder, expected, what):
    """Rows and all tensors of two runs are equal to the bit."""
    mine, theirs = tables(folder), tables(expected)
    for name, table in theirs.items():
        check(len(table) == len(mine[name]),
              f"{what}: /{name} has {len(mine[name])} rows, expected {len(table)}")
        for column in set(table.dtype.names) - NOT_COMPARED:
            differ = np.flatnonzero(mine[name][column] != table[column])
            check(len(differ) == 0, f"{what}: /{name} column {column} differs from row {differ[:1]} on")
    mine, theirs = state(folder), state(expected)
    check(mine.keys() == theirs.keys(), f"{what}: other tensors")
    for name, tensor in theirs.items():
        check(np.array_equal(mine[name], tensor), f"{what}: tensor {name} differs")
