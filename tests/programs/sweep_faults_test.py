"""Files that are damaged, foreign or not writable under a sweep that has begun: one sentence, the right exit
code, and nothing lost. After the fault is mended, the sweep ends with the rows and weights of one that nobody
disturbed, to the bit.

One sweep is trained and copied for each fault; in the copy the second run stands at its middle checkpoint.
"""

import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys

from support import (BAD_INPUT, DONE, check, command, environment, make_images, make_tokens, require_same_run, run,
                     run_folders, scratch)

FAILURE = 1
SWEEP = """
name: faults
output: calm
defaults:
  tokens: tokens.h5
  train: {batch: 8, images: 160, keep_at: "80", keep: 1}
  eval: {points: 4}
  model: {width: "16 * depth"}
runs:
  - {model.depth: [1, 2, 3, 4]}
"""
NOISE = bytes(range(256)) * 8


def half_done(folder):
    """A copy of the sweep whose second run is in training, at step 10 of 20. Returns that run's folder."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree("calm", folder, symlinks=True)
    second = run_folders(folder)[1]
    shutil.rmtree(second / "checkpoints/step-000000020")
    facts = json.loads((second / "status.json").read_text())
    (second / "status.json").write_text(json.dumps(facts | {"state": "running", "step": 10}))
    return second


class Cases:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, [], []

    @contextlib.contextmanager
    def case(self, what):
        """Notes a check that fails, and goes on with the next."""
        try:
            yield
            self.passed += 1
        except SystemExit as error:
            self.failed.append(f"{what}: {error}")

    def refused(self, what, line, code, pattern, limit=None):
        """One launch that must end with this code and say one sentence that fits, or one a run that fails."""
        done = subprocess.run(command(*line), env=environment(), text=True, capture_output=True, timeout=300,
                              check=False, preexec_fn=limit)
        said = [text for text in done.stderr.splitlines() if text.startswith(f"{line[0]}: ")]
        check(done.returncode == code, f"{what}: exit code {done.returncode}, expected {code}\n{done.stderr}")
        check(said and all(re.search(pattern, text) for text in said), f"{what}: does not fit {pattern!r}\n{done.stderr}")
        runs = [text for text in said if re.match(r"var_sweep: run \S+ failed: ", text)]
        check(len(said) == max(1, len(runs)), f"{what}: {len(said)} sentences\n{done.stderr}")
        check("HDF5" not in done.stderr.replace("HDF5 failed to", "").replace("an HDF5 file", ""),
              f"{what}: HDF5 talks\n{done.stderr}")

    def goes_on(self, what, folder):
        """The sweep ends, and every run is the calm one's."""
        done = run("var_sweep", "sweep.yaml", "--set", f"output={folder}", code=None)
        check(done.returncode == DONE, f"{what}: exit code {done.returncode} after mending\n{done.stderr}")
        for mine, expected in zip(run_folders(folder), run_folders("calm"), strict=True):
            require_same_run(mine, expected, f"{what}: {mine}")


# --- files below the sweep folder ------------------------------------------------------------------


def overwrite(content):
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def make_folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


def edit_json(change):
    def apply(path):
        facts = json.loads(path.read_text())
        change(facts)
        path.write_text(json.dumps(facts))
    return apply


MANIFEST, WEIGHTS = "checkpoints/step-000000010/manifest.json", "checkpoints/step-000000010/rank-00000.safetensors"

# What, the file (run: of the second run), how it is broken, exit code, what is said.
SWEEP_FAULTS = [
    ("plan cut short", "plan.json", cut, BAD_INPUT, r"plan\.json: not readable as JSON"),
    ("plan of noise", "plan.json", overwrite(NOISE), BAD_INPUT, r"plan\.json: not readable as JSON"),
    ("foreign plan", "plan.json", overwrite('{"sweep": 3}'), BAD_INPUT, r"plan\.json: not a plan of a sweep"),
    ("plan is a folder", "plan.json", make_folder, BAD_INPUT, r"plan\.json: is a folder"),
    ("status cut short", "run:status.json", cut, BAD_INPUT, r"status\.json: not readable as JSON"),
    ("foreign status", "run:status.json", overwrite('{"state": "gone", "step": 0, "steps": 1}'), BAD_INPUT,
     r"status\.json: unknown state gone"),
    ("status of numbers", "run:status.json", overwrite("[1, 2]"), BAD_INPUT, r"status\.json: not a status of a run"),
    ("config cut short", "run:config.yaml", lambda path: os.truncate(path, 75), BAD_INPUT, r"config\.yaml"),
    ("config of noise", "run:config.yaml", overwrite(NOISE), BAD_INPUT, r"config\.yaml: this run was made with other"),
    ("rows are a folder", "run:run.h5", make_folder, BAD_INPUT, r"run\.h5: cannot be put in place"),
    ("foreign manifest", f"run:{MANIFEST}", overwrite("[]"), BAD_INPUT, r"manifest\.json: not a checkpoint manifest"),
    ("manifest of an older schema", f"run:{MANIFEST}", edit_json(lambda facts: facts.update(schema=1)), BAD_INPUT,
     r"manifest\.json: not a checkpoint manifest of schema 2: its schema"),
    ("manifest without a tensor's rows", f"run:{MANIFEST}",
     edit_json(lambda facts: facts["tensors"].__setitem__(0, facts["tensors"][0] | {"rows": [0, 1]})), BAD_INPUT,
     r"manifest\.json: .*1 of \d+ rows of tensor"),
    ("manifest of a giant", f"run:{MANIFEST}",
     edit_json(lambda facts: facts["tensors"][0].update(shape=[1 << 40, 1 << 20], axis=0, rows=[0, 1 << 40])), BAD_INPUT,
     r"manifest\.json: .*larger than its file"),
    ("manifest that leads out of the folder", f"run:{MANIFEST}",
     edit_json(lambda facts: facts["files"].update({"../x": {"bytes": 1, "sha256": ""}})), BAD_INPUT,
     r"manifest\.json: .*'\.\./x'"),
    ("weights missing", f"run:{WEIGHTS}", pathlib.Path.unlink, BAD_INPUT,
     r"rank-00000\.safetensors: the manifest names it, but it is missing"),
    ("weights are a folder", f"run:{WEIGHTS}", make_folder, BAD_INPUT, r"rank-00000\.safetensors: is not a file"),
    ("foreign weights", f"run:{WEIGHTS}", overwrite(NOISE), BAD_INPUT, r"rank-00000\.safetensors: has 2048 bytes"),
    ("rows of a checkpoint cut short", "run:checkpoints/step-000000010/run.h5", cut, BAD_INPUT,
     r"step-000000010/run\.h5: has \d+ bytes, its manifest says"),
    ("sweep.h5 is a folder", "sweep.h5", make_folder, BAD_INPUT, r"sweep\.h5: cannot be put in place"),
]


def sweep_files(cases):
    for what, name, damage, code, pattern in SWEEP_FAULTS:
        with cases.case(what):
            second = half_done("broken")
            path = second / name.removeprefix("run:") if name.startswith("run:") else pathlib.Path("broken", name)
            shutil.copy2(path, "kept")
            damage(path)
            cases.refused(what, ("var_sweep", "sweep.yaml", "--set", "output=broken"), code, pattern)
            if path.is_dir():
                path.rmdir()
            shutil.copy2("kept", path)
            cases.goes_on(what, "broken")


def rows_of_a_killed_run(cases):
    """run.h5 is made anew from the checkpoint, whatever lies there; until then --status does without it."""
    for what, damage in (("rows cut short", cut), ("rows of noise", overwrite(NOISE)), ("rows missing", pathlib.Path.unlink)):
        with cases.case(what):
            second = half_done("broken")
            damage(second / "run.h5")
            rows = json.loads(run("var_sweep", "sweep.yaml", "--set", "output=broken", "--status", "--json").stdout)
            check(rows["runs"][1]["loss_mean"] is not None, f"{what}: the checkpoint's rows are not shown")
            cases.goes_on(what, "broken")


# --- files beside it -------------------------------------------------------------------------------


def calibrations(cases):
    pathlib.Path("results").mkdir()
    path = pathlib.Path("results/calibration-cpu.json")
    for what, text in (("calibration cut short", '{"device": "cpu", "poi'), ("foreign calibration", "[1, 2]"),
                       ("calibration without a depth", '{"points": [{"precision": "fp32"}]}'),
                       ("calibration with a text", '{"points": [{"depth": "x", "precision": "fp32", "flops_per_s_per_rank": 1}]}')):
        with cases.case(what):
            half_done("broken")
            path.write_text(text)
            cases.refused(what, ("var_sweep", "sweep.yaml", "--set", "output=broken"), BAD_INPUT,
                          r"calibration-cpu\.json: not a calibration")
            path.unlink()
            cases.goes_on(what, "broken")


def sweep_yaml(cases):
    """The sweep file and what it includes. Nothing below the output may change, so nothing is to be mended there."""
    half_done("broken")
    text = SWEEP.replace("output: calm", "output: broken")
    pathlib.Path("base.yaml").write_text("defaults: {train.batch: 8}\n")
    pathlib.Path("round.yaml").write_text("include: trip.yaml\n")
    pathlib.Path("trip.yaml").write_text("include: round.yaml\n")
    pathlib.Path("noise.yaml").write_bytes(NOISE[::-1])
    pathlib.Path("text.yaml").write_text("name: [unclosed\n")
    pathlib.Path("folder.yaml").mkdir()
    pathlib.Path("loop.yaml").symlink_to("loop.yaml")
    pathlib.Path("self.yaml").write_text(f"include: self.yaml\n{text}")
    rows = [("noise", "noise.yaml", r"noise\.yaml:\d+: "),
            ("a folder", "folder.yaml", r"folder\.yaml: is a folder"),
            ("a link to itself", "loop.yaml", r"loop\.yaml: cannot be read: Too many levels"),
            ("includes itself", "self.yaml", r"self\.yaml:1: more than 10 files include one another")]
    for included, pattern in (("noise.yaml", r"noise\.yaml:\d+: "),
                              ("text.yaml", r"text\.yaml:\d+: not valid YAML"),
                              ("folder.yaml", r"main\.yaml:2: cannot include folder\.yaml: is a folder"),
                              ("loop.yaml", r"main\.yaml:2: cannot include loop\.yaml"),
                              ("nowhere.yaml", r"main\.yaml:2: cannot include nowhere\.yaml"),
                              ("[base.yaml, round.yaml]", r"more than 10 files include one another")):
        rows.append((f"includes {included}", (f"\ninclude: {included}{text}"), pattern))
    for what, content, pattern in rows:
        with cases.case(what):
            name = content
            if "\n" in content:
                name = "main.yaml"
                pathlib.Path(name).write_text(content)
            cases.refused(what, ("var_sweep", name), BAD_INPUT, pattern)
    with cases.case("a sweep whose file was mended"):
        pathlib.Path("main.yaml").write_text(f"include: base.yaml{text}")
        run("var_sweep", "main.yaml")
        for mine, expected in zip(run_folders("broken"), run_folders("calm"), strict=True):
            require_same_run(mine, expected, f"mended sweep file: {mine}")


def token_file(cases):
    with cases.case("tokens are a folder"):
        half_done("broken")
        shutil.move("tokens.h5", "kept")
        pathlib.Path("tokens.h5").mkdir()
        cases.refused("tokens are a folder", ("var_sweep", "sweep.yaml", "--set", "output=broken"), BAD_INPUT,
                      r"tokens\.h5: is not a file")
        pathlib.Path("tokens.h5").rmdir()
        shutil.move("kept", "tokens.h5")
        cases.goes_on("tokens are a folder", "broken")


def fits(cases):
    """What var_fit reads. It writes into fit/ alone, and works again once the file is back."""
    for what, name, damage, pattern in (
            ("var_fit, rows cut short", "run:run.h5", cut, r"run\.h5: cannot be opened"),
            ("var_fit, rows of noise", "run:run.h5", overwrite(NOISE), r"run\.h5: is not an HDF5 file"),
            ("var_fit, rows are tokens", "run:run.h5", lambda path: shutil.copy2("tokens.h5", path), r"run\.h5: "),
            ("var_fit, plan cut short", "plan.json", cut, r"plan\.json: not a plan that var_sweep wrote"),
            ("var_fit, foreign plan", "plan.json", overwrite('{"runs": [{}]}'), r"plan\.json: not a plan"),
            ("var_fit, rows are a folder", "run:run.h5", make_folder, r"run\.h5: is a folder")):
        with cases.case(what):
            shutil.rmtree("broken", ignore_errors=True)
            shutil.copytree("calm", "broken")
            path = run_folders("broken")[1] / name[4:] if name.startswith("run:") else pathlib.Path("broken", name)
            shutil.copy2(path, "kept")
            damage(path)
            cases.refused(what, ("var_fit", "broken", "--no-figures"), BAD_INPUT, pattern)
            check(not pathlib.Path("broken/fit/fit.json").exists(), f"{what}: a fit was written")
            if path.is_dir():
                path.rmdir()
            shutil.copy2("kept", path)
            run("var_fit", "broken", "--no-figures")


# --- no place to write -----------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(megabytes):
    """A file system of that size at ./disk, or None and the reason."""
    pathlib.Path("disk").mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes * 1024:.0f}k", "tmpfs", "disk"], text=True,
                          capture_output=True, check=False)
    if done.returncode != 0:
        yield done.stderr.strip() or "no mount"
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", "disk"], check=True)


def remount(options):
    subprocess.run(["mount", "-o", f"remount,{options}", "disk"], check=True)


def full_disks(cases):
    whole = sum(path.stat().st_size for path in pathlib.Path("calm").rglob("*") if path.is_file()) / 2**20
    for share in (0.002, 0.3, 0.6, 0.9):
        what = f"disk with room for {share:.1%} of the sweep"
        with small_disk(share * whole) as reason:
            if reason:
                cases.skipped.append(f"{what}: {reason}")
                continue
            with cases.case(what):
                cases.refused(what, ("var_sweep", "sweep.yaml", "--set", "output=disk/full"), FAILURE,
                              r"No space left on device")
                remount(f"size={3 * whole:.0f}m")
                cases.goes_on(what, "disk/full")


def read_only_folders(cases):
    what = "read-only folder"
    with small_disk(64) as reason:
        if reason:
            cases.skipped.append(f"{what}: {reason}")
            return
        with cases.case(what):
            half_done("disk/broken")
            remount("ro")
            cases.refused(what, ("var_sweep", "sweep.yaml", "--set", "output=disk/broken"), BAD_INPUT,
                          r"disk/broken.*Read-only file system")
            run("var_sweep", "sweep.yaml", "--set", "output=disk/broken", "--status")
            cases.refused(what, ("var_sweep", "sweep.yaml", "--csv", "disk/csv"), BAD_INPUT, r"disk/csv.*Read-only")
            cases.refused(what, ("var_fit", "disk/broken", "--no-figures"), BAD_INPUT, r"disk/broken/fit.*Read-only")
            remount("rw")
            cases.goes_on(what, "disk/broken")


def file_size_limits(cases):
    """The same for any user: no file may grow beyond a limit."""
    weights = (run_folders("calm")[1] / WEIGHTS).stat().st_size
    for what, bytes_allowed in (("no file beyond 100 bytes", 100), ("no file beyond 32 KiB", 32768),
                                ("no file beyond half of the weights", weights // 2)):
        with cases.case(what):
            half_done("broken")
            cases.refused(what, ("var_sweep", "sweep.yaml", "--set", "output=broken"), FAILURE, r"File too large",
                          limit=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_allowed, bytes_allowed)))
            cases.goes_on(what, "broken")


def main():
    cases = Cases()
    with scratch("sweep-faults"):
        make_images()
        make_tokens()
        pathlib.Path("sweep.yaml").write_text(SWEEP)
        run("var_sweep", "sweep.yaml")
        for group in (sweep_files, rows_of_a_killed_run, calibrations, sweep_yaml, token_file, fits, full_disks,
                      read_only_folders, file_size_limits):
            group(cases)
        for reason in cases.skipped:
            print(f"sweep faults: not tested: {reason}")
        if cases.failed:
            sys.exit("\n".join(["FAILED:", *cases.failed, f"{len(cases.failed)} failed, {cases.passed} passed"]))
    print(f"sweep faults: {cases.passed} faults: one sentence, the right exit code, and after mending rows and "
          f"weights equal to the bit")


if __name__ == "__main__":
    main()
