"""var_sample: killed at random instants and started again with another number of ranks it gives the archive that nobody
disturbed, to the byte; a signal ends it with exit code 75; a weights file gives the images of its run; pictures are
in-painted and made finer; a classifier keeps the same images at any number of ranks; what is refused leaves nothing.
"""

import argparse
import hashlib
import json
import os
import pathlib
import signal
import subprocess

import matplotlib.image
import numpy as np
import safetensors.numpy

from support import (BAD_INPUT, STOPPED, check, command, environment, groups_done, kill, make_images, make_tokens,
                     ranks_of, run, run_folders, scratch, wait_for_groups, with_chance)

SWEEP = """
name: sample
defaults:
  tokens: tokens.h5
  train: {images: 96, batch: 16}
  model: {width: 32, heads: 2}
runs:
  - {model.depth: 2}
"""
CLASSES, PER_CLASS, GROUP = 3, 101, 4
IMAGES = CLASSES * PER_CLASS
GROUPS = -(-IMAGES // GROUP)
OPTIONS = ["--tokenizer", "tokens.safetensors", "--classes", "0,1,2", "--per-class", PER_CLASS, "--group", GROUP,
           "--cfg", "2", "--top-k", "40", "--seed", "5", "--order-seed", "3"]


def options(model, out, batch=GROUP):
    return ["var_sample", model, *OPTIONS, "--npz", out, "--batch", batch]


def start(model, ranks, out):
    return subprocess.Popen(command(*options(model, out), ranks=ranks), env=environment(), stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)


def read_archive(path):
    """numpy's view of it, and the same images in the order of their classes."""
    file = np.load(path)
    images, labels = file["arr_0"], file["arr_1"]
    caption = json.loads(pathlib.Path(path).with_suffix(".json").read_text())
    check(caption["order_seed"] == 3 and caption["classes"] == [0, 1, 2], caption)
    check(images.dtype == np.uint8 and images.shape == (IMAGES, 16, 16, 3), f"{images.dtype} {images.shape}")
    check(np.array_equal(np.bincount(labels), [PER_CLASS] * CLASSES), f"labels {labels}")
    check(not np.array_equal(labels, np.sort(labels)), "the archive is in the order of the classes")
    return images, labels


def has_tokens_on_request(model, images, labels):
    run(*options(model, "tokens.npz"), "--npz-tokens")
    check(all(np.array_equal(*both) for both in zip(read_archive("tokens.npz"), (images, labels))), "other images")
    tokens = np.load("tokens.npz")["arr_2"]
    check(tokens.dtype == np.uint16 and tokens.shape == (IMAGES, 21) and 32 < tokens.max() < 64, f"tokens {tokens}")


def survives_kills(model, calm, kills, chance):
    out, killed = "killed.npz", 0
    while killed < kills:
        process = start(model, chance.choice([0, 2]), out)
        done = groups_done(out)
        if wait_for_groups(process, out, done + chance.randrange(1, max(2, (GROUPS - done) // 2))):
            kill(process)
            killed += 1
        else:
            _, errors = process.communicate()
            check(process.returncode == 0, f"ended with {process.returncode}: {errors}")
        if pathlib.Path(out).exists():
            check(pathlib.Path(out).read_bytes() == calm, "an incomplete archive")
            os.remove(out)
    before = groups_done(out)
    done = run(*options(model, out), ranks=2)
    check(before == 0 or "images are there already" in done.stderr, f"began anew:\n{done.stderr}")
    check(pathlib.Path(out).read_bytes() == calm, "the archive of the killed launches has other bytes")
    check(not pathlib.Path(f"{out}.part").exists(), "the folder of the work is left")
    print(f"sample: {killed} kills at 1 and 2 ranks, same bytes", flush=True)


def stops_on_signal(model, calm, number, ranks):
    out = "stopped.npz"
    process = start(model, ranks, out)
    check(wait_for_groups(process, out, 2), "ended before it could be stopped")
    # A launcher would kill the ranks after SIGTERM: one of them is told, and tells the other.
    os.kill(ranks_of(process, "var_sample")[-1], number)
    _, errors = process.communicate(timeout=60)
    check(process.returncode == STOPPED, f"signal {number}: {process.returncode}, expected 75\n{errors}")
    check("start it again to go on" in errors and not pathlib.Path(out).exists(), errors)
    other = run("var_sample", model, *OPTIONS, "--npz", out, "--temperature", "2", code=BAD_INPUT)
    check("holds images that were begun with temperature 1.0, now 2.0" in other.stderr, other.stderr)
    run(*options(model, out, batch=64), ranks=2 - ranks)  # with the other number of ranks
    check(pathlib.Path(out).read_bytes() == calm, "the archive of the stopped launch has other bytes")
    os.remove(out)


def a_weights_file_is_its_run(model, images, labels):
    run("var_data", "export", model, "--out", "weights.safetensors")
    run("var_sample", "weights.safetensors", *OPTIONS[:-2], "--images", "folder/", "--out", "picture.png")
    files = sorted(pathlib.Path("folder").iterdir())
    check(len(files) == IMAGES and files[PER_CLASS].name == "0001-000000.png", f"{files[:3]}")
    drawn = np.stack([np.round(matplotlib.image.imread(file) * 255).astype(np.uint8) for file in files])
    digests = [sorted(hashlib.sha256(image.tobytes()).hexdigest() for image in some) for some in (drawn, images)]
    check(digests[0] == digests[1], "a weights file gives other images than its run")
    for name in ("folder.json", "picture.json"):
        caption = json.loads(pathlib.Path(name).read_text())
        check(caption["weights_run_id"] and caption["depth"] == 2, caption)
    again = run("var_sample", "weights.safetensors", *OPTIONS[:-2], "--images", "folder", code=BAD_INPUT)
    check("folder: is there already" in again.stderr, again.stderr)
    refused = run("var_sample", "weights.safetensors", "--tokenizer", "tokens.safetensors", "--tokens", "tokens.h5",
                  code=BAD_INPUT)
    check("a weights file needs no token file" in refused.stderr, refused.stderr)


def goes_on_after_the_first_output():
    """As if killed between the outputs: the caption of the second one cannot be written."""
    line = ["var_sample", "weights.safetensors", *OPTIONS[:2], "--classes", "0", "--images", "first",
            "--out", "last.png"]
    pathlib.Path("last.json").mkdir()
    failed = run(*line, code=None)
    check(failed.returncode != 0 and pathlib.Path("first.part").exists(), failed.stderr)
    check(len(list(pathlib.Path("first").iterdir())) == 8, "the first output")
    before = os.stat("first").st_ino
    pathlib.Path("last.json").rmdir()
    done = run(*line)
    check("8 of 8 images are there already" in done.stderr and os.stat("first").st_ino == before, done.stderr)
    check(pathlib.Path("last.json").exists() and not pathlib.Path("first.part").exists(), "the second output")
    pathlib.Path("taken.png").mkdir()
    refused = run("var_sample", "weights.safetensors", *OPTIONS[:2], "--out", "taken.png", code=BAD_INPUT)
    check("taken.png: is a folder, expected the name of a file" in refused.stderr, refused.stderr)


def zero_shot(model):
    image = sorted(pathlib.Path("images/val").glob("*/*.png"))[0]
    both = [model, "--tokenizer", "tokens.safetensors", "--image", image]
    for name, more in (("inpaint", ["--box", "4,4,12,12"]), ("outpaint", ["--box", "4,4,12,12"]),
                       ("edit", ["--box", "0,0,8,16", "--class", "1", "--cfg", "3", "--smooth"]),
                       ("super", ["--first-scales", "2", "--class", "0"])):
        run("var_sample", name, *both, *more, "--count", "3", "--seed", "1", "--out", f"{name}.png", "--images", name)
        first = {file.name: file.read_bytes() for file in pathlib.Path(name).iterdir()}
        check(len(first) == 3 and len(set(first.values())) > 1, f"{name}: {first.keys()}")
        # With fewer results and on two ranks the same ones come out.
        run("var_sample", name, *both, *more, "--count", "2", "--seed", "1", "--images", f"{name}-again", ranks=2)
        for file in pathlib.Path(f"{name}-again").iterdir():
            check(file.read_bytes() == first[file.name], f"{name}: {file.name} differs")
        caption = json.loads(pathlib.Path(f"{name}.json").read_text())
        check(caption["task"] == name and 0 < caption["tokens_given"] < caption["tokens"] == 21, caption)
    # All maps given: the tokenizer's reconstruction, which the picture shows beside the image.
    run("var_sample", "super", *both, "--first-scales", "3", "--count", "1", "--out", "all.png")
    sheet = matplotlib.image.imread("all.png")
    scale = json.loads(pathlib.Path("all.json").read_text())["enlarged"]
    before, reconstruction, given, result = (
        sheet[2 * scale:18 * scale, (2 + 18 * i) * scale:(18 + 18 * i) * scale] for i in range(4))
    check(np.array_equal(reconstruction, result) and not np.array_equal(before, result), "all maps given")
    check(np.array_equal(given, result), "what is given of all maps")
    # In-painting shows what it is given: the reconstruction but for a board of two greys in the box.
    sheet = matplotlib.image.imread("inpaint.png")
    reconstruction, given = (sheet[2 * scale:18 * scale, (2 + 18 * i) * scale:(18 + 18 * i) * scale][::scale, ::scale]
                             for i in (1, 2))
    inside = np.zeros((16, 16), bool)
    inside[4:12, 4:12] = True
    check(np.array_equal(given[~inside], reconstruction[~inside]), "what is given around the box")
    check(len(np.unique(given[inside], axis=0)) == 2, "the board in the box")

    for arguments, sentence in (
            (["inpaint"], "expected one of --mask and --box"),
            (["inpaint", "--box", "4,4,4,8"], "expected x0 < x1 and y0 < y1 within the 16 x 16 pixels"),
            (["inpaint", "--box", "4,4,5,5"], "leaves nothing to paint"),
            (["outpaint", "--box", "0,0,16,16"], "leaves nothing to paint"),
            (["inpaint", "--mask", "tokens.yaml"], "tokens.yaml"),
            (["inpaint", "--mask", "all.png"], "expected 16 x 16, the size of"),
            (["inpaint", "--box", "0,0,8,8", "--cfg", "2"], "--cfg: has no effect without --class"),
            (["edit", "--box", "0,0,8,8"], "--class is required"),
            (["edit", "--box", "0,0,8,8", "--class", "99"], "--class: 99 is not a class; expected 0 to 9"),
            (["edit", "--box", "0,0,8,8", "--class", "00_ember"], "did you mean 00_embers?"),
            (["super", "--first-scales", "4"], "--first-scales: 4, expected 1 to 3"),
            (["super", "--first-scales", "1", "--image", "nowhere.png"], "nowhere.png")):
        line = ["var_sample", arguments[0], *both, *arguments[1:], "--out", "refused.png"]
        if "nowhere.png" in arguments:
            line.remove("--image"), line.remove(image)
        refused = run(*line, code=BAD_INPUT)
        check(sentence in refused.stderr and len(refused.stderr.splitlines()) == 1, refused.stderr)
        check(not list(pathlib.Path(".").glob("refused*")), f"{arguments} left something")


def resnet50(classes, random):
    """Weights under torchvision's names, drawn."""
    weights = {}

    def unit(conv, norm, into, out, side):
        weights[f"{conv}.weight"] = random.normal(0, (2 / (into * side * side)) ** 0.5, (out, into, side, side))
        for part in ("weight", "running_var"):
            weights[f"{norm}.{part}"] = random.uniform(0.5, 1, out)
        for part in ("bias", "running_mean"):
            weights[f"{norm}.{part}"] = random.normal(0, 0.1, out)

    unit("conv1", "bn1", 3, 64, 7)
    into = 64
    for layer, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], 1):
        for i in range(blocks):
            name = f"layer{layer}.{i}"
            for k, (a, b, side) in enumerate([(into, width, 1), (width, width, 3), (width, 4 * width, 1)], 1):
                unit(f"{name}.conv{k}", f"{name}.bn{k}", a, b, side)
            if i == 0:
                unit(f"{name}.downsample.0", f"{name}.downsample.1", into, 4 * width, 1)
            into = 4 * width
    weights["fc.weight"], weights["fc.bias"] = random.normal(0, 0.02, (classes, into)), random.normal(0, 0.1, classes)
    return {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}


def rejects_at_any_number_of_ranks(model):
    safetensors.numpy.save_file(resnet50(10, np.random.default_rng(3)), "resnet.safetensors")
    line = ["var_sample", model, "--tokenizer", "tokens.safetensors", "--classes", "0,1,2", "--per-class", 5,
            "--classifier", "resnet.safetensors", "--keep-share", 0.5]
    run(*line, "--npz", "kept.npz")
    run(*line, "--npz", "kept3.npz", "--batch", 1, ranks=3)
    check(pathlib.Path("kept3.npz").read_bytes() == pathlib.Path("kept.npz").read_bytes(), "three ranks keep others")
    captions = [json.loads(pathlib.Path(name).read_text()) for name in ("kept.json", "kept3.json")]
    check(captions[0] == captions[1], captions)
    check(captions[0]["probability_of_kept"] > captions[0]["probability_of_all"], captions[0])
    check(np.load("kept.npz")["arr_0"].shape == (15, 16, 16, 3) and not pathlib.Path("kept.npz.part").exists(), "kept")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=3)
    arguments, chance = with_chance(parser, "sample")
    with scratch("sample"):
        make_images()
        make_tokens()
        pathlib.Path("sweep.yaml").write_text(SWEEP)
        run("var_sweep", "sweep.yaml")
        model = run_folders("results/sample")[0]
        run(*options(model, "calm.npz"))
        calm = pathlib.Path("calm.npz").read_bytes()
        images, labels = read_archive("calm.npz")
        has_tokens_on_request(model, images, labels)
        run(*options(model, "two.npz", batch=100), ranks=2)
        check(pathlib.Path("two.npz").read_bytes() == calm, "two ranks give other bytes than one")
        survives_kills(model, calm, arguments.kills, chance)
        stops_on_signal(model, calm, signal.SIGTERM, 0)
        stops_on_signal(model, calm, signal.SIGINT, 2)
        a_weights_file_is_its_run(model, images, labels)
        goes_on_after_the_first_output()
        zero_shot(model)
        rejects_at_any_number_of_ranks(model)


if __name__ == "__main__":
    main()
