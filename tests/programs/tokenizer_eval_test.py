"""var_tokenizer eval over ranks, with networks of others from files that Python's torch has saved."""

import json
import pathlib
import subprocess
import sys

import safetensors.numpy

import torch_python
from support import BAD_INPUT, SOURCE, check, make_images, run, scratch

FIXTURES = SOURCE / "tests/fixtures"
TOKENIZER = """
model: {image_side: 16, channels: 16, channel_mult: [1, 1, 2], groups: 4, code_width: 8, vocabulary: 64,
        scales: [1, 2, 4], phis: 2}
train: {steps: 30, batch: 8}
codebook: {start_step: 5, kmeans_images: 32}
"""

# VGG16 and LPIPS's heads in the forms of their public files (the older form, and the zip form), the FID network as
# pytorch-fid has it and under a key, and each again for safetensors.
PYTHON = r"""
import json, sys, collections
import numpy as np, torch
import safetensors.numpy
torch.manual_seed(0)
dict_of = collections.OrderedDict
vgg = dict_of()
last = 3
for number, out in zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (64,) * 2 + (128,) * 2 + (256,) * 3 + (512,) * 6):
    vgg[f"features.{number}.weight"] = torch.randn(out, last, 3, 3) * (2 / (9 * last)) ** 0.5
    vgg[f"features.{number}.bias"] = torch.zeros(out)
    last = out
vgg["classifier.0.weight"] = torch.zeros(256, 512)
heads = dict_of((f"lin{i}.model.1.weight", torch.rand(1, n, 1, 1)) for i, n in enumerate((64, 128, 256, 512, 512)))
inception = dict_of()
for name, kind, dtype, shape in json.load(open(sys.argv[1]))["fid_inception_v3"]["state_dict"]:
    if name.endswith("num_batches_tracked"):
        inception[name] = torch.tensor(0)
    elif len(shape) > 1:
        inception[name] = torch.randn(shape) * (2 / np.prod(shape[1:])) ** 0.5
    else:
        inception[name] = torch.ones(shape) if name.endswith(("bn.weight", "running_var")) else torch.zeros(shape)
torch.save(vgg, "vgg.pth", _use_new_zipfile_serialization=False)
torch.save(heads, "heads.pth")
torch.save({"epoch": 3, "state_dict": inception}, "inception.pth")
for name, values in ("vgg", vgg), ("heads", heads), ("inception", inception):
    safetensors.numpy.save_file({k: v.numpy() for k, v in values.items()}, name + ".safetensors")

class Evil:
    def __reduce__(self):
        return (__import__("os").system, ("touch evil",))
torch.save({**vgg, "e": Evil()}, "evil.pth")
"""


def judged(*args, ranks=0):
    return json.loads(run("var_tokenizer", "eval", "--tokenizer", "tok.safetensors", "--images", "images/val", *args,
                          "--json", ranks=ranks).stdout)


def check_ranks():
    """The same figures to the last bit: every rank has one thread."""
    options = ("--batch", 3, "--lpips", "made", "--features", "random", "--seed", 7)
    one = judged(*options)
    check(one["images"] == 10 and 0 < one["ssim"] < 1 and one["lpips"]["value"] > 0, f"one rank: {one}")
    check(one["frechet"]["name"] == "rFD-random" and one["frechet"]["value"] > 0, f"one rank: {one['frechet']}")
    check(one["frechet"]["network"]["name"] == "random inception, seed 7", f"one rank: {one['frechet']}")
    check(not one["frechet"]["comparable"] and not one["lpips"]["comparable"], "made networks pass for comparable")
    for ranks in (2, 3):
        picture = pathlib.Path(f"picture{ranks}.png")
        check(judged(*options, "--picture", picture, ranks=ranks) == one, f"{ranks} ranks give other figures")
        check(picture.read_bytes()[:4] == b"\x89PNG", f"{ranks} ranks: no picture")


def check_files():
    """Whichever way a network is saved, its identity and the figures are the same."""
    few = ("--limit", 3)
    pth = judged(*few, "--lpips", "vgg.pth", "--lpips", "heads.pth", "--features", "inception.pth")
    check(pth["frechet"]["name"] == "rFD-" + pth["frechet"]["network"]["name"], f"unnamed network: {pth['frechet']}")
    same = judged(*few, "--lpips", "vgg.safetensors", "--lpips", "heads.safetensors", "--features",
                  "inception.safetensors")
    check(same == pth, f"safetensors give {same}, .pth {pth}")
    check(pth["lpips"]["comparable"] and ":made:" not in pth["lpips"]["network"], f"files: {pth['lpips']}")
    words = run("var_tokenizer", "eval", "--tokenizer", "tok.safetensors", "--images", "images/val", *few, "--features",
                "inception.pth", "--name", "inception-2015-12-05").stdout
    line = next(line for line in words.splitlines() if line.startswith("rFID "))
    check(pth["frechet"]["network"]["identity"][:16] in line, f"rFID without its network: {line}")


def check_refusals():
    def refuses(words, *args, ranks=0):
        done = run("var_tokenizer", "eval", "--tokenizer", "tok.safetensors", "--images", "images/val", "--picture",
                   "never.png", *args, code=BAD_INPUT, ranks=ranks)
        # A launcher has its own words besides.
        check(words in done.stderr and (ranks or done.stderr.count("\n") == 1), f"{args}: said {done.stderr}")
        check(not pathlib.Path("never.png").exists(), f"{args}: left a picture")

    refuses("evil.pth: data.pkl", "--lpips", "evil.pth", "--lpips", "heads.pth")
    check(not pathlib.Path("evil").exists(), "evil.pth was run")
    refuses("vgg.pth: no tensor 'lin0.model.1.weight' or 'lin0'", "--lpips", "vgg.pth")
    refuses("heads.pth: holds no tensor Conv2d_1a_3x3.conv.weight", "--features", "heads.pth", ranks=2)
    refuses("--lpips nowhere.pth: no such file", "--lpips", "nowhere.pth")
    refuses("--lpips made: needs no file", "--lpips", "made", "--lpips", "heads.pth")
    refuses("--name mine: names the weights of --features", "--name", "mine")
    refuses("--seed 3: has an effect with --lpips made or --features random alone", "--seed", 3, ranks=2)
    done = run("var_tokenizer", "eval", "--tokenizer", "tok.safetensors", "--images", "images/val", "--columns", 3,
               code=BAD_INPUT)
    check("--columns 3: has an effect with --picture alone" in done.stderr, f"said {done.stderr}")


def main():
    with scratch("tokenizer_eval") as folder:
        make_images(train=32, val=10, side=16)
        pathlib.Path("tok.yaml").write_text(TOKENIZER)
        run("var_tokenizer", "train", "tok.yaml", "--images", "images/train", "--out", "tok.safetensors")
        (folder / "hollow").mkdir()
        python = subprocess.run([sys.executable, "-c", PYTHON, FIXTURES / "names.json"], check=False, text=True,
                                capture_output=True, env=torch_python.environment(folder / "hollow"))
        check(python.returncode == 0, f"Python's torch: {python.stderr}")
        check(len(safetensors.numpy.load_file("inception.safetensors")) == 566, "not the 566 tensors of the FID network")
        check_ranks()
        check_files()
        check_refusals()


main()
