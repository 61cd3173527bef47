"""var_eval over ranks: features and figures are the same to the bit at one, two and three of them, whether a set comes
as images or as kept features; an image that one rank cannot read ends all of them with one sentence. The runs of a sweep
are scored by the samples that var_sample draws and the figures that `var_eval fd` takes, at any number of ranks and after
a kill and a signal; the report has them.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import h5py
import numpy as np

from support import (BAD_INPUT, STOPPED, check, command, environment, kill, make_images, make_tokens, ranks_of, run,
                     run_folders, scratch)

NETWORK = ["--features", "random", "--batch", "4"]


def figures(*options, ranks):
    done = run("var_eval", "fd", "--json", *options, ranks=ranks)
    values = json.loads(done.stdout)
    return {key: values[key] for key in ("frechet", "spatial_frechet", "kid", "precision", "recall", "network")}


SWEEP = """
name: scored
defaults:
  tokens: tokens.h5
  train: {images: 96, batch: 16}
  model: {width: 32, heads: 2}
runs:
  - {model.depth: [1, 2, 3]}
evaluate:
  tokenizer: tokens.safetensors
  reference: images/val
  features: random
  feature_batch: 4
  images: 10
  cfg: 1.5
  cfg_grid: [0, 3]
  grid_seed: 9
  top_k: 40
  group: 2
  batch: 2
"""


def scores_of(folder):
    return json.loads((folder / "scores.json").read_text())


def drawn():
    return pathlib.Path("results/scored").glob("runs/*/scores.part/cfg-*/group-*.u8")


def is_by_hand(run_folder, score, name, *options, reference="images/val"):
    """What var_sample and var_eval fd give."""
    run("var_sample", run_folder, "--tokenizer", "tokens.safetensors", "--classes", "all", "--per-class", 1, "--cfg",
        score["cfg"], "--top-k", 40, "--group", 2, "--images", name, *options)
    got = json.loads(run("var_eval", "fd", "--reference", reference, "--samples", name, *NETWORK, "--json").stdout)
    got |= {name: got[name]["value"] for name in ("frechet", "spatial_frechet", "kid") if name in got}
    for figure in ("frechet", "spatial_frechet", "kid", "precision", "recall"):
        check(score.get(figure) == got.get(figure), f"{name}: {score}, by hand {got}")


def a_sweep_is_scored():
    make_tokens()
    pathlib.Path("sweep.yaml").write_text(SWEEP)
    run("var_sweep", "sweep.yaml", ranks=2)
    folders = run_folders("results/scored")
    score = ["var_eval", "sweep", "sweep.yaml"]
    table = run(*score, ranks=2).stdout
    check("sweep scored: 3 runs scored on 10 samples each against 6 images of images/val" in table, table)
    wanted = [scores_of(folder) for folder in folders]
    check(not list(pathlib.Path("results/scored").glob("runs/*/scores.part")), "the folder of the work is left")

    first = wanted[0]
    for column in ("protocol", "best"):
        is_by_hand(folders[0], first[column], column)
    least = min(first["grid"], key=lambda each: each["frechet"])
    check(first["best"]["cfg"] == least["cfg"] and first["frechet_name"] == "FD-random", first)
    check(first["network"]["name"] == "random inception, seed 0" and first["reference"]["images"] == 6, first)

    # Again there is nothing to do.
    before = [(folder / "scores.json").stat().st_mtime_ns for folder in folders]
    run(*score)
    check(before == [(folder / "scores.json").stat().st_mtime_ns for folder in folders], "scored twice")

    # Killed and stopped in the middle, with other numbers of ranks.
    os.remove(folders[1] / "scores.json")
    for how, ranks in ((signal.SIGKILL, 1), (signal.SIGTERM, 3)):
        process = subprocess.Popen(command(*score, ranks=ranks), env=environment(), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        known = set(drawn())
        while process.poll() is None and not set(drawn()) - known:
            time.sleep(0.002)
        check(process.poll() is None, "ended before it could be stopped")
        if how == signal.SIGKILL:
            kill(process)
            continue
        os.kill(ranks_of(process, "var_eval")[-1], how)
        _, errors = process.communicate(timeout=120)
        check(process.returncode == STOPPED and "start it again to go on" in errors, f"{process.returncode}\n{errors}")
    run(*score, ranks=3)
    check([scores_of(folder) for folder in folders] == wanted, "other scores after a kill and a signal")
    print("scores: a sweep, killed and stopped at 1 and 3 ranks, same figures", flush=True)

    run("var_fit", "results/scored", "--no-figures", "--resamples", "100")
    fitted = json.loads(pathlib.Path("results/scored/fit/fit.json").read_text())["scores"]
    check([each["protocol"] for each in fitted["runs"]] == [each["protocol"] for each in wanted], fitted)
    check("Samples against compute" in pathlib.Path("results/scored/fit/report.html").read_text(), "not in the report")

    # Statistics for images, and another precision.
    with h5py.File("val1.h5") as file:
        arrays = {"": file["features"][:], "_s": file["spatial"][:]}
    np.savez("val.npz", **{f"mu{end}": rows.mean(0) for end, rows in arrays.items()},
             **{f"sigma{end}": np.cov(rows, rowvar=False) for end, rows in arrays.items()})
    other = ["evaluate.precision=bf16", "evaluate.cfg=2", "evaluate.reference=val.npz", "runs=[{model.depth: 1}]"]
    run(*score, *(word for setting in other for word in ("--set", setting)))
    again = scores_of(folders[0])
    check(again["settings"]["precision"] == "bf16" and again["protocol"]["cfg"] == 2, again)
    check("recall" not in again["protocol"] and again["reference"]["images"] == 0, again)
    is_by_hand(folders[0], again["protocol"], "bf16", "--precision", "bf16", reference="val.npz")

    make_tokens("foreign", seed=1)
    shutil.copy(next(pathlib.Path("images/val").glob("*/*.png")), "one.png")
    for setting, says in (("evaluate.tokenizer=none.safetensors", "none.safetensors"),
                          ("evaluate.reference=nowhere", "nowhere: does not exist, expected a folder of images"),
                          ("evaluate.tokenizer=foreign.safetensors", "made the tokens of no run of this sweep"),
                          ("evaluate.features=none", "evaluate.features none: no such file"),
                          ("evaluate.reference=${NO_SUCH_SET:-}", "sweep.yaml: evaluate.reference is empty; set the "),
                          ("evaluate.images=21", "evaluate.images is 21, expected a multiple of the 10 classes"),
                          ("evaluate.reference=one.png", "one.png: not a zip archive")):
        refused = run(*score, "--set", setting, code=BAD_INPUT)
        check(says in refused.stderr, f"{setting}: {refused.stderr}")


def main():
    with scratch("scores"):
        make_images(train=96, val=6)
        make_images("other", train=10, val=9)
        for ranks in (1, 2, 3):
            run("var_eval", "features", "--images", "images/val", *NETWORK, "--out", f"val{ranks}.h5", ranks=ranks)
        stores = {pathlib.Path(f"val{ranks}.h5").read_bytes() for ranks in (1, 2, 3)}
        check(len(stores) == 1, "features depend on the number of ranks")
        wanted = figures("--reference", "images/val", "--samples", "other/val", *NETWORK, ranks=1)
        check(wanted["frechet"]["value"] > 0 and wanted["spatial_frechet"]["name"] == "sFD-random", wanted)
        for ranks, reference in ((3, "images/val"), (2, "val1.h5")):
            got = figures("--reference", reference, "--samples", "other/val", *NETWORK, ranks=ranks)
            check(got == wanted, f"{reference} at {ranks} ranks: {got}, expected {wanted}")
        print("scores: features and figures at 1, 2 and 3 ranks, same bits", flush=True)

        a_sweep_is_scored()

        torn = sorted(pathlib.Path("other/val").glob("*/*.png"))[-1]
        torn.write_bytes(torn.read_bytes()[:60])
        failed = run("var_eval", "features", "--images", "other/val", *NETWORK, "--out", "torn.h5", ranks=3,
                     code=BAD_INPUT)
        check(failed.stderr.count("not a readable image") == 1 and torn.name in failed.stderr, failed.stderr)
        check(not list(pathlib.Path(".").glob("torn.h5*")), "an incomplete file is left")


if __name__ == "__main__":
    main()
