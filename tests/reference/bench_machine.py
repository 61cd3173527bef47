"""What the comparisons of launch/bench.sh share: the machine in words, the programs, the file, and what else ran meanwhile."""

import datetime
import json
import os
import pathlib
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time

SOURCE = pathlib.Path(__file__).parents[2]
BIN = pathlib.Path(os.environ.get("VARSCALE_BIN", SOURCE / "build/release/bin"))
DISTURBED = 5  # per cent of the machine that others took, from which on a file warns


def refuse(sentence):
    print(f"bench: {sentence}", file=sys.stderr)
    sys.exit(2)


def printed(command, environment, name):
    """The object on the last line that a program prints; `name` is what a refusal calls it."""
    done = subprocess.run(command, text=True, capture_output=True, check=False, env=environment)
    if done.returncode != 0:
        refuse(f"{name} ended with {done.returncode}: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def var_bench(*arguments, threads):
    line = ["var_bench", *map(str, arguments)]
    return printed([BIN / line[0], *line[1:]], os.environ | {"OMP_NUM_THREADS": str(threads)}, shlex.join(line))


def check_programs():
    if not (BIN / "var_bench").exists():
        refuse(f"{BIN}/var_bench is missing; build it, or name the folder of the programs in VARSCALE_BIN")


def file_of_today(folder, what):
    """The file to write, <date>_<what>.md; refuses if it could not be written."""
    if not folder.is_dir():
        refuse(f"--out {folder}: there is no such folder")
    file = folder / f"{datetime.date.today()}_{what}.md"
    if file.exists():
        refuse(f"{file} is there already; move it away first")
    return file


def busy_seconds():
    """Of all processors, by all processes, since the start of the machine."""
    user, nice, system, _, _, irq, soft, *_ = map(int, pathlib.Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class OtherWork:
    """What other processes take of the machine from here on."""

    def __init__(self):
        self.busy, self.own, self.begin = busy_seconds(), own_seconds(), time.monotonic()

    def so_far(self):
        """(seconds of processor time by others, seconds of the clock, per cent of the machine)"""
        others = max(0.0, busy_seconds() - self.busy - (own_seconds() - self.own))
        wall = time.monotonic() - self.begin
        return others, wall, 100 * others / (wall * os.cpu_count())


def warning(others):
    """A sentence where they took too much."""
    if others <= DISTURBED:
        return ""
    return f" Other work took {others:.0f} % of the machine meanwhile: these figures are not to be quoted."


def machine():
    cpu = pathlib.Path("/proc/cpuinfo").read_text()

    def field(name):
        found = re.search(rf"^{name}\s*: (.+)$", cpu, re.MULTILINE)
        return found[1].strip() if found else "unknown"

    model, cores = field("model name"), os.cpu_count()
    known = re.search(r"epyc|xeon|ryzen|core|neoverse|graviton", model.lower())
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {name} " in field("flags") + " "]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', pathlib.Path("/etc/os-release").read_text(), re.MULTILINE))
    slug = known[0] if known else re.sub(r"\W+", "-", model.lower()).strip("-")
    return f"{slug}-{cores}cpu", (f"{model} (family {field('cpu family')}), {cores} virtual CPUs ({', '.join(sets)}), "
                                  f"{memory:.0f} GiB, {release.get('PRETTY_NAME', 'Linux')}")


def output(*command):
    """Empty where the program is missing."""
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, text=True, capture_output=True, check=False, cwd=SOURCE).stdout.strip()


def commit():
    packed = SOURCE / "commit"  # by launch/gpu_check.sh
    if packed.exists():
        return packed.read_text().strip()
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", ".", ":!results"], cwd=SOURCE, check=False).returncode
    return output("git", "rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def gpu():
    return output("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader").splitlines()
