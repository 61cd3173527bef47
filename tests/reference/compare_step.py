"""Training steps of var_bench and of PyTorch's paths, turn by turn: launch/bench.sh step. Both sides get the same batch, numbers
of tokens, threads and settings of the C library's allocator; each measurement is a process of its own.
"""

import argparse
import importlib.util
import os
import pathlib
import re
import shlex
import shutil
import signal
import sys
import sysconfig
import tempfile

import step_report
from bench_machine import BIN, SOURCE, OtherWork, check_programs, commit, file_of_today, gpu, machine, output, printed, refuse

SET_UP = "run ./launch/setup.sh --compare"
OURS = step_report.OURS
PATHS = [path for path in step_report.PATH_WORDS if path != OURS]
# What var_bench sets for itself (src/base/error.cpp): freed memory is kept. Without it PyTorch's steps are slower.
ALLOCATOR = "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=1073741824:glibc.malloc.top_pad=67108864"
# Paths of one precision take the same weights, batch and drops, so their losses differ by roundings alone.
LOSS_TOLERANCE = {"fp32": 1e-5, "bf16": 1e-3}
# By device: depths, and images a step of each depth; of a depth that is not there, those of the next smaller one.
DEPTHS = {"cpu": [2, 4, 6, 8], "cuda": [8, 16, 24, 30]}
BATCHES = {"cpu": {1: 8, 3: 4}, "cuda": {1: 128, 16: 48, 24: 24, 30: 16}}


def arguments():
    def numbers(text):
        values = [int(part) for part in text.split(",")]
        if min(values) < 1:
            raise ValueError(text)
        return values

    def precisions(text):
        values = text.split(",")
        if set(values) - set(LOSS_TOLERANCE):
            raise ValueError(text)
        return values

    def count(text):
        return numbers(text)[0]

    def beside(text):
        name, _, program = text.partition("=")
        if not name or name in step_report.PATH_WORDS or not os.access(program, os.X_OK):
            raise ValueError(text)
        return name, str(pathlib.Path(program).absolute())

    parser = argparse.ArgumentParser(
        prog="launch/bench.sh step", description="Times a training step at 256 px (680 tokens) of var_bench and of our own "
        "PyTorch model (tests/reference/var_torch.py), turn by turn, and writes a dated file.")
    parser.add_argument("--device", choices=DEPTHS, default="cpu", help="cpu, or cuda: one GPU")
    parser.add_argument("--depths", type=numbers, help="of the models (2,4,6,8; on a GPU 8,16,24,30)")
    parser.add_argument("--precision", type=precisions, default=["fp32", "bf16"], help="fp32,bf16, or one of them")
    parser.add_argument("--rounds", type=count, default=3, help="every path once in each (3)")
    parser.add_argument("--batch", type=count, help="images a step (8 at d2, else 4; on a GPU 128 at d8, 48 at d16, 24 at d24, 16 at d30)")
    parser.add_argument("--repeats", type=count, default=12, help="steps of a process that count (12)")
    parser.add_argument("--warmup", type=count, default=3, help="steps before them (3)")
    parser.add_argument("--threads", type=count, default=2, help="of each side (2)")
    parser.add_argument("--beside", type=beside, action="append", default=[], metavar="NAME=PROGRAM",
                        help="one more path, of another's code: an executable file that takes --depth, --batch, --precision, --repeats, "
                        "--warmup and --device, and prints a JSON object with median_ms and with what it is, as \"is\"")
    parser.add_argument("--out", type=pathlib.Path, default=SOURCE / "results/benchmarks", help="folder of the file")
    options = parser.parse_args()
    options.depths = options.depths or DEPTHS[options.device]
    options.beside = dict(options.beside)
    return options


def check_there(device):
    check_programs()
    if device == "cuda":  # its kernels are Triton's, which torch brings
        return
    missing = [name for name in ("torch", "sympy", "networkx", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        refuse(f"Python's {', '.join(missing)} is missing in .deps/venv; {SET_UP}")
    if shutil.which("g++") is None:
        refuse(f"g++ is missing, with which torch.compile builds its kernels; {SET_UP}")
    header = pathlib.Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        refuse(f"{header} is missing, which torch.compile's kernels include; {SET_UP}")


def check_same_losses(times):
    """Of the first steps, before roundings can grow."""
    first = next(iter(times.values()))
    for path, result in times.items():
        error = abs(result["losses"][0] / first["losses"][0] - 1)
        if error > LOSS_TOLERANCE[result["precision"]]:
            refuse(f"the path {path} begins with loss {result['losses'][0]} at d{result['depth']} in {result['precision']}, "
                   f"another with {first['losses'][0]}: they do not compute the same, nothing is written")


class Runner:
    def __init__(self, options, scratch):
        self.options = options
        self.ours = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
        # Kernels are compiled once and found again in the next round.
        self.theirs = self.ours | {
            **self.python(scratch / "hollow"), "OMP_NUM_THREADS": str(options.threads),
            "GLIBC_TUNABLES": ALLOCATOR, "TORCHINDUCTOR_CACHE_DIR": str(scratch / "kernels"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1"}

    def python(self, hollow):
        """What Python's torch needs here: stand-ins for the GPU libraries of a CPU installation."""
        if self.options.device == "cuda":
            return {}
        sys.path.append(str(SOURCE / "tests/programs"))
        import torch_python
        hollow.mkdir()
        return torch_python.environment(hollow)

    def batch(self, depth):
        batches = BATCHES[self.options.device]
        return self.options.batch or batches[max(known for known in batches if known <= depth)]

    def line(self, path, depth, precision):
        """The command, without its folder."""
        line = ["--depth", depth, "--batch", self.batch(depth), "--precision", precision, "--repeats",
                self.options.repeats, "--warmup", self.options.warmup, "--device", self.options.device]
        program = ["var_bench", "step"] if path == OURS else ["time_step.py", "--path", path]
        return [*([path] if path in self.options.beside else program), *map(str, line)]

    def run(self, path, depth, precision):
        program, *rest = self.line(path, depth, precision)
        if path in self.options.beside:
            start = [self.options.beside[path]]
        else:
            start = [BIN / program] if path == OURS else [sys.executable, SOURCE / "tests/reference" / program]
        name = f"{path} at d{depth} in {precision}"
        result = printed([*start, *rest], self.ours if path == OURS else self.theirs, name)
        if path in self.options.beside and (missing := {"median_ms", "is"} - result.keys()):
            refuse(f"{name} printed no {' and no '.join(sorted(missing))}")  # now, and not after the last round
        return result


def measure(runner, options):
    """(rows, reasons): rows {(precision, depth): {path: [result of each round]}}, reasons {path: why it does not run}."""
    rows = {(precision, depth): {} for precision in options.precision for depth in options.depths}
    reasons = {}
    for turn in range(options.rounds):
        order = [OURS, *PATHS, *options.beside]
        order = order[turn % len(order):] + order[:turn % len(order)]  # no path is always the first
        for (precision, depth), row in rows.items():
            now = {}
            for path in order:
                if path in reasons:
                    continue
                result = runner.run(path, depth, precision)
                if "unavailable" in result:
                    reasons[path] = result["unavailable"]
                    print(f"{path}: {result['unavailable']}", flush=True)
                    continue
                row.setdefault(path, []).append(result)
                if path in PATHS:
                    now[path] = result
                print(f"round {turn + 1} d{depth} {precision} {path}: {result['median_ms']:.1f} ms", flush=True)
            check_same_losses(now)
    return rows, reasons


def command(beside):
    """As it was typed, but where the programs beside lie."""
    words = [next((f"{name}=PROGRAM" for name in beside if word.removeprefix("--beside=").startswith(f"{name}=")), word)
             for word in sys.argv[1:]]
    return shlex.join(["./launch/bench.sh", "step", *words])


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the scratch folder goes, and the process being measured
    check_there(options.device)
    slug, words = machine()
    if options.device == "cuda":
        slug, words = re.sub(r"\W+", "-", (gpu() or ["gpu"])[0].split(",")[0].lower()), f"{'; '.join(gpu())} on {words}"
    depths = "-".join(f"d{depth}" for depth in options.depths)
    file = file_of_today(options.out, f"step-reference-{depths}-256px_{slug}")
    work = OtherWork()
    with tempfile.TemporaryDirectory(prefix="varscale-bench-") as scratch:
        runner = Runner(options, pathlib.Path(scratch))
        rows, reasons = measure(runner, options)
    others_s, wall_s, others = work.so_far()
    facts = {
        "machine": words, "options": options, "reasons": reasons, "others_s": others_s, "wall_s": wall_s, "others": others,
        "commit": commit() + (", programs of the folder in VARSCALE_BIN" if "VARSCALE_BIN" in os.environ else ""),
        "compiler": output("g++", "-dumpfullversion"), "python": sys.version.split()[0],
        "command": command(options.beside),
        "lines": {path: shlex.join(runner.line(path, options.depths[0], options.precision[0]))
                  for path in (OURS, "mask, compiled")},
        "batches": {depth: runner.batch(depth) for depth in options.depths},
    }
    file.write_text(step_report.report(rows, facts))
    print(f"written: {file}")


if __name__ == "__main__":
    main()
