"""Training on tokens that are made in each step: equal to the bit after a stop, cached tokens beside it, and every
mistake about images and tokenizer in one sentence.
"""

import io
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tarfile
import time

import h5py

from support import (BAD_INPUT, STOPPED, check, command, descendants, environment, make_images, make_tokens,
                     require_same_run, run, run_folders, scratch, status, tables)

SWEEP = """
name: online
placement: whole
defaults:
  tokens: tokens.h5
  data: {tokens: online, images: images/train, tokenizer: tokens.safetensors}
  train: {batch: 16, images: 384, save_every_min: 0.001}
  model: {drop_path: 0.1}
  eval: {points: 4}
runs:
  - {model.depth: 1}
  - {model.depth: 2, data.tokens: [cached, online]}
"""
PLAIN = "var_sweep", "sweep.yaml"


def make_crops():
    """tokens.h5 with two crops of each image: 20 pixels become 18, of which 16 are taken."""
    make_images(side=20)
    make_tokens()
    run("var_data", "tokenize", "--train", "images/train", "--val", "images/val", "--tokenizer", "tokens.safetensors",
        "--out", "tokens.h5", "--crops", 2, "--seed", 5)


def facts_of(folder):
    with h5py.File(folder / "run.h5") as file:
        return dict(file.attrs)


def trains():
    run(*PLAIN, "--set", "output=calm", ranks=2)
    first, cached, online = run_folders("calm")
    check(len({folder.name for folder in (first, cached, online)}) == 3, "cached and online have one id")
    for folder, kind, crops in ((first, "online", 384), (cached, "cached", 2 * 96), (online, "online", 384)):
        facts = facts_of(folder)
        check(facts["data_tokens"] == kind and facts["unique_tokens"] == crops * 21,
              f"{folder}: {facts['data_tokens']} with {facts['unique_tokens']} different tokens")
    check(tables(cached)["steps"]["flops"].tolist() == tables(online)["steps"]["flops"].tolist(), "encoding is counted")
    before = [(folder / "run.h5").stat().st_mtime_ns for folder in (first, cached, online)]
    shutil.move("images/train", "away")
    pathlib.Path("images/train").mkdir()  # nobody reads the images of a finished sweep
    run(*PLAIN, "--set", "output=calm", ranks=2)
    check(before == [(folder / "run.h5").stat().st_mtime_ns for folder in (first, cached, online)], "trained again")
    os.rmdir("images/train")
    shutil.move("away", "images/train")


def stops_and_goes_on():
    process = subprocess.Popen(command(*PLAIN, "--set", "output=stopped", ranks=2), env=environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list(pathlib.Path("stopped").glob("runs/*/checkpoints/step-*/manifest.json")):
        check(process.poll() is None, "the sweep ended before it could be stopped")
        time.sleep(0.02)
    for pid in descendants(process.pid):  # the launcher would kill the ranks instead of telling them
        if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "var_sweep":
            os.kill(pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    check(process.returncode == STOPPED, f"SIGTERM: {process.returncode}, expected 75\n{errors}")
    states = [status(folder)["state"] for folder in pathlib.Path("stopped/runs").glob("*")]
    check("stopped" in states, f"SIGTERM: {states}")
    run(*PLAIN, "--set", "output=stopped", ranks=2)
    for mine, expected in zip(run_folders("stopped"), run_folders("calm"), strict=True):
        require_same_run(mine, expected, f"{mine}, stopped by SIGTERM")


def refuses(what, pattern, *arguments, text=SWEEP):
    pathlib.Path("edited.yaml").write_text(text)
    for ranks in (0, 2):
        done = run("var_sweep", "edited.yaml", "--set", "output=refused", *arguments, ranks=ranks, code=BAD_INPUT)
        said = [line for line in done.stderr.splitlines() if line.startswith("var_sweep: ")]
        check(len(said) == 1 and re.search(pattern, said[0]), f"{what}: {done.stderr}")
        check(not pathlib.Path("refused").exists(), f"{what}: a sweep folder was made")


def mistakes():
    make_tokens("other", seed=1)
    shutil.copy("tokens.h5", "older.h5")
    with h5py.File("older.h5", "a") as file:
        for name in ("crop_seed", "keep_exact", "train_fingerprint"):
            del file.attrs[name]
    one_kind = SWEEP.replace(", data.tokens: [cached, online]", "")
    refuses("no images", r"edited\.yaml:6: data\.images is not set", text=one_kind.replace("images: images/train, ", ""))
    refuses("no tokenizer", r"edited\.yaml:6: data\.tokenizer is not set",
            text=one_kind.replace(", tokenizer: tokens.safetensors", ""))
    refuses("images with cached", r"edited\.yaml:6: unused key defaults\.data\.images",
            text=one_kind.replace("tokens: online, images: images/train, tokenizer: tokens.safetensors",
                                  "images: images/train"))
    refuses("absent images", r"data\.images is nowhere, which does not exist", "--set", "defaults.data.images=nowhere")
    refuses("another tokenizer", r"other\.safetensors: is not the tokenizer that tokens\.h5",
            "--set", "defaults.data.tokenizer=other.safetensors")
    refuses("no tokenizer at all", r"edited\.yaml: .*safetensors", "--set", "defaults.data.tokenizer=edited.yaml")
    refuses("another folder", r"images/val: does not hold the training images that tokens\.h5",
            "--set", "defaults.data.images=images/val")
    refuses("an older token file", r"older\.h5: was made by an older var_data", "--set", "defaults.tokens=older.h5")
    # The ids of a file that does not say so and of one that does are the same.
    ids = {re.search(r"d1-s0-\w{6}", run(*PLAIN, "--plan", "--set", f"defaults.tokens={name}.h5").stdout).group()
           for name in ("tokens", "older")}
    check(len(ids) == 1, f"ids {ids}")


def archive(images, pattern, parts):
    """The same images in the same order, as numbered archives with class numbers."""
    paths = sorted(pathlib.Path(images).glob("*/*.png"))
    classes = sorted({path.parent.name for path in paths})
    for part in range(parts):
        with tarfile.open(pattern.format(part), "w", format=tarfile.PAX_FORMAT) as tar:
            for path in paths[len(paths) * part // parts:len(paths) * (part + 1) // parts]:
                label = str(classes.index(path.parent.name)).encode()
                for suffix, data in (("png", path.read_bytes()), ("cls", label)):
                    member = tarfile.TarInfo(f"{path.parent.name}-{path.stem}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def from_archives():
    """Another source of the same images: another file, the same tokens and the same training."""
    archive("images/train", "train-{}.tar", 2)
    archive("images/val", "val-{}.tar", 1)
    run("var_data", "tokenize", "--train", "train-{0..1}.tar", "--val", "val-0.tar", "--tokenizer", "tokens.safetensors",
        "--out", "archives.h5", "--crops", 2, "--seed", 5)
    with h5py.File("tokens.h5") as plain, h5py.File("archives.h5") as archives:
        check((plain["tokens"][:] == archives["tokens"][:]).all(), "archives give other tokens")
        check((plain["labels"][:] == archives["labels"][:]).all(), "archives give other labels")
    only = ("--set", "defaults.tokens=archives.h5", "--set", "defaults.data.images=train-{0..1}.tar")
    run(*PLAIN, *only, "--set", "output=archives", ranks=2)
    for mine, expected in zip(run_folders("archives"), run_folders("calm"), strict=True):
        check(tables(mine)["steps"]["loss_mean"].tolist() == tables(expected)["steps"]["loss_mean"].tolist(),
              f"{mine}: trained otherwise than {expected}")
    refuses("the folder for archives", r"images/train: does not hold the training images that archives\.h5",
            "--set", "defaults.tokens=archives.h5")


def image_that_cannot_be_read():
    """Damaged since it was tokenized, at its old size: nothing sees it before training does."""
    image = sorted(pathlib.Path("images/train").glob("*/*.png"))[50]
    data = image.read_bytes()
    image.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    for ranks in (0, 2):
        output = f"damaged-{ranks}"
        done = run(*PLAIN, "--set", f"output={output}", ranks=ranks, code=BAD_INPUT)
        first, cached, online = run_folders(output)
        for folder in (first, online):
            failed = status(folder)
            check(failed["state"] == "failed" and f"{image}: not a readable image" in failed["reason"], failed)
            said = [line for line in done.stderr.splitlines() if f"run {folder.name} failed" in line]
            check(len(said) == 1 and str(image) in said[0], done.stderr)
        check(status(cached)["state"] == "done", status(cached))
    image.write_bytes(data)
    run("var_sweep", "sweep.yaml", "--set", "output=damaged-2", ranks=2)  # the image is back
    for mine, expected in zip(run_folders("damaged-2"), run_folders("calm"), strict=True):
        require_same_run(mine, expected, f"{mine}, after its image was repaired")


def main():
    with scratch("online"):
        make_crops()
        pathlib.Path("sweep.yaml").write_text(SWEEP)
        trains()
        stops_and_goes_on()
        mistakes()
        from_archives()
        image_that_cannot_be_read()
        print("online tokens: three runs, equal to the bit after SIGTERM from archives and after a repaired image; 9 mistakes refused")


if __name__ == "__main__":
    main()
