"""An archive of 12 GB that var_sample writes is what numpy and the library's own reader read back. For launch/prove.sh
large-archive: it takes 24 GB of disk and, where numpy can have it, as much memory as the archive has bytes.

The images come from a model and a tokenizer as small as they can be. What they show does not matter; each must be
where the archive says. So a few are drawn once more by themselves and looked for, with their classes and tokens.
"""

import argparse
import hashlib
import os
import pathlib
import re
import resource
import shutil
import struct
import subprocess
import zipfile

import numpy as np

from support import BAD_INPUT, BIN, check, environment, make_images, run, run_folders, scratch

READER = BIN.parent / "tests/npz_rows"
SIDE, CLASSES = 256, 10
IMAGE_BYTES = SIDE * SIDE * 3
TOKENIZER = """
model: {image_side: 256, channels: 4, channel_mult: [1, 1, 1, 1, 1, 1, 1], blocks: 1, groups: 1, code_width: 8,
        vocabulary: 64, scales: [1, 2, 4], phis: 1}
train: {steps: 30, batch: 4}
codebook: {start_step: 2, kmeans_images: 16}
"""
TOKENS = 21
SWEEP = """
name: large
defaults:
  tokens: tokens.h5
  train: {images: 96, batch: 16}
  model: {width: 32, heads: 2}
runs: [{model.depth: 1}]
"""
AGAIN = 8  # images of each class that are drawn once more
FOUR_GIB = 1 << 32
MOST_MEMORY = 1 << 30  # of var_sample, which has one batch of images in memory, and PyTorch


def say(words):
    print(f"large_archive: {words}", flush=True)


def available_memory():
    return int(re.search(r"MemAvailable: +(\d+) kB", pathlib.Path("/proc/meminfo").read_text())[1]) << 10


def prepare():
    make_images(train=24, val=10, side=SIDE)
    pathlib.Path("tokenizer.yaml").write_text(TOKENIZER)
    run("var_tokenizer", "train", "tokenizer.yaml", "--images", "images/train", "--out", "tok.safetensors")
    run("var_data", "tokenize", "--train", "images/train", "--val", "images/val", "--tokenizer", "tok.safetensors",
        "--out", "tokens.h5")
    pathlib.Path("sweep.yaml").write_text(SWEEP)
    run("var_sweep", "sweep.yaml")
    return run_folders("results/large")[0]


def draw(model, per_class, out, ranks):
    run("var_sample", model, "--tokenizer", "tok.safetensors", "--classes", "all", "--per-class", per_class, "--cfg", 0,
        "--npz", out, "--npz-tokens", ranks=ranks, timeout=4 * 3600)


def values_of(entry):
    """Dtype and shape of an open entry, which is then at its first value."""
    version = np.lib.format.read_magic(entry)
    check(version == (1, 0), f"version {version} of numpy's format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(entry)
    check(not fortran, "Fortran order")
    return dtype, shape


def data_place(path, info):
    """Where the bytes of a stored entry begin in the file: behind its own header."""
    with open(path, "rb") as file:
        file.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return info.header_offset + 30 + name + extra


class Rows:
    """What one pass over arr_0 has seen; zipfile compares the checksum at its end."""

    def __init__(self, path):
        self.digests, whole = [], hashlib.sha256()
        with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as entry:
            self.dtype, self.shape = values_of(entry)
            for _ in range(self.shape[0]):
                row = entry.read(IMAGE_BYTES)
                check(len(row) == IMAGE_BYTES, "a row is cut short")
                self.digests.append(hashlib.sha256(row).digest())
                whole.update(row)
            check(entry.read(1) == b"", "bytes behind the last row")
        self.whole = whole.hexdigest()


def streams_through_zipfile(path, images):
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
    check(list(entries) == ["arr_0.npy", "arr_1.npy", "arr_2.npy"], f"entries {list(entries)}")
    check(entries["arr_0.npy"].file_size > FOUR_GIB and entries["arr_1.npy"].header_offset > FOUR_GIB, "no ZIP64")
    rows = Rows(path)
    check(rows.dtype == np.uint8 and rows.shape == (images, SIDE, SIDE, 3), f"{rows.dtype} {rows.shape}")
    say(f"zipfile and numpy.lib.format: arr_0 {rows.dtype} {rows.shape}, {entries['arr_0.npy'].file_size:,} bytes, "
        f"checksum right, {len(set(rows.digests)):,} different images; arr_1 begins at byte "
        f"{entries['arr_1.npy'].header_offset:,}")
    return rows, entries


def loads_small_arrays(path, images):
    with np.load(path) as file:
        labels, tokens = file["arr_1"], file["arr_2"]
    check(labels.dtype == np.int64 and tokens.dtype == np.uint16 and tokens.shape == (images, TOKENS), "arr_1, arr_2")
    check(np.array_equal(np.bincount(labels), [images // CLASSES] * CLASSES), "other numbers of images of the classes")
    say(f"np.load: arr_1 {labels.dtype} {labels.shape}, {images // CLASSES:,} images of each of {CLASSES} classes; "
        f"arr_2 {tokens.dtype} {tokens.shape}")
    return labels, tokens


def holds_the_images_drawn_again(rows, labels, tokens):
    with np.load("again.npz") as file:
        images, again_labels, again_tokens = (file[f"arr_{i}"] for i in range(3))
    at_rows = {}
    for row, digest in enumerate(rows.digests):
        at_rows.setdefault(digest, []).append(row)
    found = []
    for image, label, tokens_L in zip(images, again_labels, again_tokens):
        rows_of_it = at_rows.get(hashlib.sha256(image.tobytes()).digest(), [])
        right = [row for row in rows_of_it if labels[row] == label and (tokens[row] == tokens_L).all()]
        check(right, f"an image of class {label} is not in the archive, or with another class or tokens")
        found.append(right[0])
    beyond = sum(row * IMAGE_BYTES > FOUR_GIB for row in found)
    check(0 < beyond < len(found), f"{beyond} of {len(found)} images lie beyond 4 GiB")
    say(f"{len(found)} images drawn again by themselves are in it, with their classes and tokens, at rows "
        f"{min(found):,} to {max(found):,}, {beyond} of them beyond 4 GiB")


def maps_and_loads(path, rows, entries):
    info = entries["arr_0.npy"]
    begin = data_place(path, info)
    with zipfile.ZipFile(path) as archive, archive.open(info) as entry:
        values_of(entry)
        head = entry.tell()
    mapped = np.memmap(path, np.uint8, "r", begin + head, rows.shape)
    check((begin + head) % 64 == 0, "the values begin at no multiple of 64")
    for row in (0, FOUR_GIB // IMAGE_BYTES, rows.shape[0] - 1):  # the second one lies across the border
        check(hashlib.sha256(mapped[row].tobytes()).digest() == rows.digests[row], f"np.memmap has another row {row}")
    say(f"np.memmap from byte {begin + head}: first and last row and the one across 4 GiB are the same")
    del mapped
    free = available_memory()
    if free < info.file_size + (2 << 30):
        say(f"np.load of arr_0 as a whole: not tried, {free / 2**30:.1f} GiB of memory are free")
        return
    with np.load(path) as file:
        images = file["arr_0"]
    check(images.dtype == rows.dtype and images.shape == rows.shape, f"np.load: {images.dtype} {images.shape}")
    for row, digest in enumerate(rows.digests):
        check(hashlib.sha256(images[row].data).digest() == digest, f"np.load has another row {row}")
    say(f"np.load of arr_0 as a whole: {images.nbytes / 2**30:.2f} GiB, every row the same")


def library_reads(path, rows):
    def reader(*more, code=0):
        done = subprocess.run([str(READER), path, *map(str, more)], env=environment(), text=True, capture_output=True,
                              check=False)
        check(done.returncode == code, f"npz_rows {more}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    images = rows.shape[0]
    check(reader().stdout == f"{images} {SIDE} {SIDE} {rows.whole}\n", "the library reads other images than numpy")
    last = images - 10
    with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as entry:
        values_of(entry)
        entry.seek(last * IMAGE_BYTES, 1)
        tail = hashlib.sha256(entry.read()).hexdigest()
    check(reader("--from", last).stdout == f"{images} {SIDE} {SIDE} {tail}\n", "the library reads other last images")
    say("NpzSet, by which var_eval reads: every image the same in one pass, and the last 10 by a seek")

    run("var_data", "synth", "--out", "small", "--train", 10, "--val", 10, "--side", 16)
    said = run("var_eval", "fd", "--reference", path, "--samples", "small/val", "--features", "random", code=BAD_INPUT)
    check(f"{path} holds images of {SIDE} x {SIDE} pixels, small/val of 16 x 16" in said.stderr, said.stderr)
    say(said.stderr.strip())

    # Damage near the end, then without the directory: the file is no longer needed.
    with open(path, "r+b") as file:
        file.seek(images * IMAGE_BYTES - 1)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    said = reader(code=BAD_INPUT)
    check(f"{path}: entry 'arr_0.npy' is damaged" in said.stderr, said.stderr)
    say(said.stderr.strip())
    os.truncate(path, os.path.getsize(path) - 1)
    said = run("var_eval", "fd", "--reference", path, "--samples", "small/val", "--features", "random", code=BAD_INPUT)
    check(f"{path}: not a zip archive, or a damaged one" in said.stderr, said.stderr)
    say(said.stderr.strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--per-class", type=int, default=6200, help="images of each of the ten classes")
    parser.add_argument("--ranks", type=int, default=2)
    arguments = parser.parse_args()
    images = CLASSES * arguments.per_class
    check(images * IMAGE_BYTES > FOUR_GIB, "expected more than 4 GiB")
    with scratch("large-archive") as folder:
        needed = 2 * images * IMAGE_BYTES + (1 << 30)
        check(shutil.disk_usage(folder).free > needed, f"{folder} has less than {needed / 1e9:.0f} GB of room")
        model = prepare()
        draw(model, arguments.per_class, "large.npz", arguments.ranks)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
        say(f"var_sample drew {images:,} images of {SIDE} x {SIDE} on {arguments.ranks} ranks and wrote "
            f"{os.path.getsize('large.npz'):,} bytes, with at most {memory / 2**20:.0f} MiB of memory a process")
        check(memory < MOST_MEMORY, f"a process took {memory} bytes")
        draw(model, AGAIN, "again.npz", 0)
        rows, entries = streams_through_zipfile("large.npz", images)
        labels, tokens = loads_small_arrays("large.npz", images)
        holds_the_images_drawn_again(rows, labels, tokens)
        maps_and_loads("large.npz", rows, entries)
        library_reads("large.npz", rows)


if __name__ == "__main__":
    main()
