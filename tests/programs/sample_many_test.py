"""500 images are the same bytes whatever batch and number of ranks draws them and after kills in the middle; and how
much of them another group size or precision leaves as it was. For launch/prove.sh samples.

What the group size may change has bounds with reasons, which are checked; what bf16 changes is printed alone.
"""

import argparse
import collections
import itertools
import pathlib
import subprocess

import numpy as np

from support import (check, command, environment, groups_done, kill, make_images, make_tokens, run, run_folders,
                     scratch, wait_for_groups)

SWEEP = """
name: many
defaults:
  tokens: tokens.h5
  train: {images: 960, batch: 16}
runs:
  - {model.depth: 4}
"""
CLASSES, PER_CLASS = 10, 50
IMAGES = CLASSES * PER_CLASS
SCALES = "1, 2, 3, 4"
BATCHES, RANKS, GROUPS = (1, 7, 32), (1, 2, 3), (1, 8, 16)
GROUP = 8  # the default
# A draw compares a random number with cumulated probabilities. In float32 these miss by less than 1e-5, so another
# group size decides less than 64 x 1e-5 of the draws otherwise and, with all that follows from one of 30, changes less
# than a fiftieth of the images.
SAME_IMAGES_FP32 = 0.98


def options(model, out, batch=64, group=GROUP, precision="fp32"):
    return ["var_sample", model, "--tokenizer", "tokens.safetensors", "--classes", "all", "--per-class", PER_CLASS,
            "--cfg", "2", "--top-k", "40", "--seed", "5", "--npz", out, "--batch", batch, "--group", group,
            "--precision", precision]


def same_at_any_batch_and_ranks(model):
    first = None
    for batch, ranks in itertools.product(BATCHES, RANKS):
        run(*options(model, "a.npz", batch), ranks=ranks)
        drawn = pathlib.Path("a.npz").read_bytes()
        first = first or drawn
        check(drawn == first, f"batch {batch} on {ranks} ranks gives other bytes than {BATCHES[0]} on {RANKS[0]}")
    print(f"sample_many: {IMAGES} images, groups of {GROUP}, fp32: the same archive of {len(first):,} bytes at batch "
          f"{BATCHES} x ranks {RANKS}", flush=True)
    return first


def same_when_few_are_asked_for(model):
    """A batch as a caller sees it: 1, 7 or 32 images of a class alone are among its 50, with fewer beside them."""
    file = np.load("a.npz")
    images, labels = file["arr_0"], file["arr_1"]
    for label, count in zip((3, 0, 9), BATCHES):
        few = options(model, f"few{count}.npz")
        few[few.index("--classes") + 1], few[few.index("--per-class") + 1] = label, count
        run(*few)
        found = {image.tobytes() for image in images[labels == label]}
        drawn = {image.tobytes() for image in np.load(f"few{count}.npz")["arr_0"]}
        check(len(found) == PER_CLASS and len(drawn) == count, "images of one class are equal")
        check(drawn <= found, f"{count} images of class {label} alone are others")
    print(f"sample_many: {BATCHES} images of a class asked for alone are among its {PER_CLASS}, to the bit", flush=True)


def same_after_kills(model, calm):
    """At each number of ranks killed in the middle, and gone on with by another."""
    slots = collections.Counter((c * 1_000_001 + j) % GROUP for c in range(CLASSES) for j in range(PER_CLASS))
    groups = max(slots.values())
    for ranks, then in zip(RANKS, RANKS[1:] + RANKS[:1]):
        process = subprocess.Popen(command(*options(model, "killed.npz", batch=1), ranks=ranks), env=environment(),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        check(wait_for_groups(process, "killed.npz", groups // 2), f"{ranks} ranks ended before the kill")
        kill(process)
        left = groups_done("killed.npz")
        check(groups // 2 <= left < groups and not pathlib.Path("killed.npz").exists(), f"{left} groups at the kill")
        done = run(*options(model, "killed.npz", batch=32), ranks=then)
        check("images are there already" in done.stderr, f"began anew:\n{done.stderr}")
        check(pathlib.Path("killed.npz").read_bytes() == calm, f"killed at {ranks} ranks, ended by {then}: other bytes")
        pathlib.Path("killed.npz").unlink()
        print(f"sample_many: SIGKILL to {ranks} of {ranks} ranks after {left} of {groups} groups, ended by {then}: the "
              "same bytes", flush=True)


def compare_groups_and_precisions(model):
    drawn = {}
    for precision, group in itertools.product(("fp32", "bf16"), GROUPS):
        run(*options(model, "b.npz", group=group, precision=precision), "--npz-tokens")
        file = np.load("b.npz")
        drawn[precision, group] = file["arr_2"], file["arr_0"].astype(int)
    print(f"sample_many: {IMAGES} images of {drawn['fp32', GROUP][0].shape[1]} tokens, share that is equal:\n"
          "    precision, group   and          tokens      first map   images      pixel values   others", flush=True)
    pairs = [(("fp32", a), ("fp32", b)) for a, b in itertools.combinations(GROUPS, 2)]
    pairs += [(("bf16", a), ("bf16", b)) for a, b in itertools.combinations(GROUPS, 2)]
    pairs += [(("fp32", group), ("bf16", group)) for group in GROUPS]
    for one, other in pairs:
        (tokens_a, pixels_a), (tokens_b, pixels_b) = drawn[one], drawn[other]
        equal = tokens_a == tokens_b
        same_images = equal.all(axis=1)
        differences = np.abs(pixels_a - pixels_b)
        differ = differences[differences > 0]
        others = "none"
        if differ.size:
            others = f"{(~equal).sum():,} tokens, {differ.size:,} values by {differ.mean():.1f} of 255 in the mean"
        print(f"    {one[0]} {one[1]:<13} {other[0]} {other[1]:<7} {equal.mean():<11.5f} {equal[:, 0].mean():<11.5f} "
              f"{same_images.mean():<11.5f} {(differences == 0).mean():<14.5f} {others}", flush=True)
        if one[0] == other[0] == "fp32":
            check(same_images.mean() > SAME_IMAGES_FP32, f"groups of {one[1]} and {other[1]} have few images in common")
            # Codes are summed slot by slot and images decoded one by one: equal tokens are equal pixels.
            check(not differences[same_images].any(), "images of equal tokens differ in their pixels")
    check(any((drawn["fp32", group][0] != drawn["bf16", group][0]).any() for group in GROUPS),
          "bf16 changes no token, so that the shares say nothing")


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with scratch("sample-many"):
        make_images(train=480, val=20)
        make_tokens(scales=SCALES)
        pathlib.Path("sweep.yaml").write_text(SWEEP)
        run("var_sweep", "sweep.yaml")
        model = run_folders("results/many")[0]
        calm = same_at_any_batch_and_ranks(model)
        same_when_few_are_asked_for(model)
        same_after_kills(model, calm)
        compare_groups_and_precisions(model)


if __name__ == "__main__":
    main()
