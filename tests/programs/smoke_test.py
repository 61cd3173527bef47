"""The quickstart in miniature: images, tokenizer, tokens, a sweep on two ranks, samples, fit, report.

What each stage leaves is read as a user would read it: pandas, h5py, safetensors, JSON, a browser.
"""

import json
import pathlib
import re
import struct
import time

import h5py
import numpy as np
import pandas

from support import SOURCE, check, require_scalars, run, run_folders, scratch, state, status

STEP_COLUMNS = ["step", "segment", "images", "tokens", "flops", "lr", "loss_mean", "loss_tail",
                "err_mean", "err_tail", "grad_norm", "skipped", "step_s", "busy_min_s", "busy_max_s",
                "slowest_rank", "data_wait_s", "comm_wait_s", "memory_bytes", "tokens_per_s", "tflops", "mfu"]
EVAL_COLUMNS = ["step", "segment", "images", "tokens", "flops", "lr", "loss_mean", "loss_tail",
                "err_mean", "err_tail", "val_images", "whole_set", "eval_s"]
SCALE_COLUMNS = ["step", "scale", "loss", "err"]
FACTS = ["depth", "seed", "budget_images", "role", "params_total", "params_blocks", "params_paper",
         "unique_tokens", "passes", "flop_formula", "loss_unit", "err_unit", "schema_version"]
SWEEP = [SOURCE / "sweeps/smoke.yaml", "--set", "output=smoke", "--set", "defaults.tokens=tokens.h5"]


def png_size(path):
    data = pathlib.Path(path).read_bytes()
    check(data[:8] == b"\x89PNG\r\n\x1a\n", f"{path} is not a PNG")
    return struct.unpack(">II", data[16:24])


def make_tokens():
    run("var_data", "synth", "--out", "images", "--train", 300, "--val", 40, "--side", 32)
    run("var_tokenizer", "train", SOURCE / "sweeps/quickstart_tokenizer.yaml", "--images", "images/train",
        "--out", "tokenizer.safetensors", "--set", "train.steps=120", "--set", "train.images=0",
        "--set", "codebook.kmeans_images=64")
    report = json.loads(run("var_tokenizer", "eval", "--tokenizer", "tokenizer.safetensors", "--images",
                            "images/val", "--picture", "reconstructions.png", "--json").stdout)
    png_size("reconstructions.png")
    check(report["psnr_db"] > 10, f"the tokenizer learnt nothing: {report}")
    run("var_data", "tokenize", "--train", "images/train", "--val", "images/val",
        "--tokenizer", "tokenizer.safetensors", "--out", "tokens.h5")
    return json.loads(run("var_data", "inspect", "tokens.h5", "--verify", "--json").stdout)


def check_records(folder, tokens):
    """Reads one run with pandas, h5py and safetensors; returns first and last validation loss."""
    for table, columns in (("steps", STEP_COLUMNS), ("eval", EVAL_COLUMNS), ("scales", SCALE_COLUMNS)):
        frame = pandas.read_hdf(folder / "run.h5", table)
        check(list(frame.columns) == columns, f"{folder}: /{table} has columns {list(frame.columns)}")
        # No peak is known of a CPU, so there is no MFU.
        finite = frame.drop(columns="mfu", errors="ignore").to_numpy(dtype=float)
        check(np.isfinite(finite).all(), f"{folder}: /{table} is not finite")
        check(table != "steps" or frame.mfu.isna().all(), f"{folder}: an MFU on a CPU")
        with h5py.File(folder / "run.h5", "r") as file:
            check(all(np.array_equal(file[table][name], frame[name].to_numpy(), equal_nan=True)
                      for name in columns),
                  f"{folder}: pandas and h5py read different /{table}")
            missing = [name for name in FACTS if name not in file.attrs]
            check(not missing, f"{folder}: no attributes {missing}")
            params = int(file.attrs["params_total"])
    steps, evals = pandas.read_hdf(folder / "run.h5", "steps"), pandas.read_hdf(folder / "run.h5", "eval")
    check(list(steps["step"]) == list(range(1, 76)), f"{folder}: steps {list(steps['step'])}")
    last = evals.iloc[-1]
    check(last["whole_set"] == 1 and last["val_images"] == 40 and last["step"] == 75,
          f"{folder}: the last evaluation is not of the whole set after the last step")
    scales = pandas.read_hdf(folder / "run.h5", "scales")
    final = scales[scales["step"] == 75]
    weights = np.array(tokens["scales"]) ** 2 / tokens["tokens_per_image"]
    check(abs((final["loss"] * weights).sum() / last["loss_mean"] - 1) < 1e-9,
          f"{folder}: the mean loss is not the mean of the scales' losses")

    tensors = state(folder)
    count = sum(tensor.size for name, tensor in tensors.items() if name.startswith("param."))
    check(count == params, f"{folder}: {count} parameters in the checkpoint, {params} in run.h5")
    return evals["loss_mean"].iloc[0], last["loss_mean"]


def check_gathered(folders):
    """TensorBoard's files, sweep.h5 and the CSV export have what the run.h5 have."""
    for folder in folders:
        require_scalars(folder)
    said = run("var_sweep", *SWEEP, "--csv", "csv").stdout
    check(said == f"csv: summary.csv, and the tables of {len(folders)} runs\n", said)
    summary = pandas.read_csv("csv/summary.csv", float_precision="round_trip")
    with h5py.File("smoke/sweep.h5") as sweep:
        check(list(sweep["runs"]) == sorted(folder.name for folder in folders), f"sweep.h5 has {list(sweep['runs'])}")
        check([name.decode() for name in sweep["summary"]["id"]] == [folder.name for folder in folders],
              "sweep.h5: other ids")
        for i, folder in enumerate(folders):
            row = sweep["summary"][i]
            check(row["state"] == b"done" and row["loss_mean"] == sweep["runs"][folder.name]["eval"]["loss_mean"][-1],
                  f"sweep.h5: {row}")
            check(summary["loss_mean"][i] == row["loss_mean"] and summary["flops"][i] == row["flops"],
                  "summary.csv differs from sweep.h5")
            check(abs(row["flops"] / sweep["runs"][folder.name]["steps"]["flops"][-1] - 1) < 1e-12,
                  "sweep.h5: other FLOPs than the last step's")
            frame = pandas.read_csv(f"csv/{folder.name}_steps.csv", float_precision="round_trip")
            # 16.0 is written as 16.
            pandas.testing.assert_frame_equal(frame, pandas.read_hdf(folder / "run.h5", "steps"), check_exact=True,
                                              check_dtype=False)
    rows = json.loads(run("var_sweep", *SWEEP, "--status", "--json").stdout)["runs"]
    check(all(row["health"]["skipped"] == 0 for row in rows), rows)


def check_report(folder):
    page = (folder / "report.html").read_text()
    images = re.findall(r'<img[^>]*\bsrc="[^"]{0,30}|<svg id="f-[a-z_]+" class="plot"', page)
    check(len(images) >= 5, f"report.html shows {len(images)} images")
    loaded = re.findall(r"(?:\bsrc=|<link\b[^>]*\bhref=|url\(|@import)\s*[\"']?(?!data:|[\"'#])[^\s>]{1,60}", page)
    check(not loaded, f"report.html loads {loaded}")
    return len(images), len(page)


def main():
    begin = time.monotonic()
    with scratch("smoke"):
        tokens = make_tokens()
        unigram = tokens["statistics"]["unigram"]

        run("var_sweep", *SWEEP, ranks=2)
        folders = run_folders("smoke")
        losses = [check_records(folder, tokens) for folder in folders]
        for folder, (first, last) in zip(folders, losses):
            check(status(folder)["state"] == "done", f"{folder}: {status(folder)}")
            check(last < min(first, unigram),
                  f"{folder}: loss {first:.4f} to {last:.4f}; code frequencies alone give {unigram:.4f}")
        check_gathered(folders)
        before = [(folder / "run.h5").stat().st_mtime_ns for folder in folders]
        run("var_sweep", *SWEEP, ranks=2)
        check(before == [(folder / "run.h5").stat().st_mtime_ns for folder in folders],
              "a second start has touched finished runs")

        run("var_fit", "smoke", "--register-prediction")
        run("var_sample", folders[-1], "--tokenizer", "tokenizer.safetensors", "--per-class", 2,
            "--out", "smoke/samples.png")
        width, height = png_size("smoke/samples.png")
        run("var_fit", "smoke")
        fit = json.loads(pathlib.Path("smoke/fit/fit.json").read_text())
        laws = [law for law in fit["fits"] if law["law"] == "L(N)"]
        check(len(laws) >= 8, f"fit.json has {len(laws)} laws L(N)")
        law = pathlib.Path("smoke/fit/law.txt").read_text()
        check(law.startswith("L(N)") and law == fit["sentence"] + "\n", f"law.txt says {law!r}")
        pictures, characters = check_report(pathlib.Path("smoke/fit"))
    print(f"smoke: {len(folders)} runs, validation loss {losses[0][0]:.3f} to "
          f"{', '.join(f'{last:.3f}' for _, last in losses)} (unigram {unigram:.3f}); samples {width} x "
          f"{height}; report of {characters / 1e6:.1f} MB with {pictures} pictures; "
          f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
