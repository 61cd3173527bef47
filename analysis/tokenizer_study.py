"""Compares ways to train a small tokenizer, on images of 32 px: what each codebook lever gives, what each loss gives.

    .deps/venv/bin/python analysis/tokenizer_study.py levers --images results/quickstart-images --out results/levers
    .deps/venv/bin/python analysis/tokenizer_study.py losses --images results/quickstart-images --out results/losses

levers trains one tokenizer a variant and seed and prints a table: PSNR, codes used and perplexity on each scale.
losses trains tokenizers under different losses and a VAR model on the tokens of each, at the same number of FLOPs;
samples of the models are compared with --reference, a folder of images of the same kind that nobody was trained on, by
a Fréchet distance in an Inception of random weights. Losses on different tokens cannot be compared; these can.
The images are those of `var_data synth` or a folder like it: train/ and val/, square, 32 px or more.
What is there already is kept, so a study that was interrupted goes on. A table in Markdown is the output.
"""

import argparse
import copy
import json
import math
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BIN = Path(os.environ.get("VARSCALE_BIN", Path(__file__).parents[1] / "build/release/bin"))
LAUNCH = Path(__file__).parents[1] / "launch/mpirun.sh"

# Architecture, budget and optimiser of sweeps/quickstart_tokenizer.yaml.
BASE = {
    "model": {"image_side": 32, "channels": 32, "channel_mult": [1, 1, 2], "blocks": 1, "groups": 8, "code_width": 16,
              "vocabulary": 256, "scales": [1, 2, 4, 8], "phis": 4, "phi_ratio": 0.5, "beta": 0.25},
    "train": {"steps": 1600, "batch": 8, "images": 8000, "init": "zero_residual", "report_every": 400},
    "loss": {"l2": 1, "l1": 0, "vq": 1},
    "optimizer": {"lr": 1.5e-3, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0, "clip": 1, "warmup_steps": 20,
                  "hold": 0.5, "end": 0.05},
}
# Codes that follow the gradient of the quantiser's loss from the first step, as in the public code.
PUBLIC = {"codebook": {"update": "gradient", "start_step": 0, "kmeans_images": 0}}
KMEANS = {"codebook": {"start_step": 30, "kmeans_images": 256, "kmeans_iterations": 8}}
MEANS = {"codebook": {"update": "ema", "decay": 0.98, "start_step": 0, "kmeans_images": 0, "restart_every": 0}}
RESTARTS = {"codebook": {"restart_every": 20, "restart_below": 0.05, "restart_until": 0.8}}
NORMAL, SMALL = {"train": {"init_codes": "normal"}}, {"train": {"init_codes": "small"}}
UNIT = {"model": {"unit_norm": True}}
DROPOUT = {"codebook": {"scale_dropout": 0.3, "scale_dropout_from": 1}}
ENTROPY = {"codebook": {"entropy": 0.1}}
ALL = [SMALL, MEANS, KMEANS, RESTARTS]

LEVERS = {
    "gradient, normal codes": [PUBLIC, NORMAL],
    "gradient, small codes": [PUBLIC, SMALL],
    "gradient, small, unit norm": [PUBLIC, SMALL, UNIT],
    "gradient, small, entropy": [PUBLIC, SMALL, ENTROPY],
    "gradient, small, scale dropout": [PUBLIC, SMALL, DROPOUT],
    "gradient, k-means start": [PUBLIC, SMALL, KMEANS],
    "running means, small codes": [SMALL, MEANS],
    "running means, restarts": [SMALL, MEANS, RESTARTS],
    "running means, k-means start": [SMALL, MEANS, KMEANS],
    "running means, k-means, restarts": ALL,
    "all, scale dropout": [*ALL, DROPOUT],
    "all, unit norm": [*ALL, UNIT],
    "all, entropy": [*ALL, ENTROPY],
}
PERCEPTUAL = {"loss": {"lpips": 0.3, "vgg_weights": "made"}}
ADVERSARIAL = {"adversarial": {"discriminator": "patch_gan", "weight": 0.4, "start_step": 800, "warmup_steps": 100,
                               "channels": 32, "layers": 2, "groups": 16, "lecam": 0.001}}
LOSSES = {
    "L2 + VQ": ALL,
    "L2 + L1 + VQ": [*ALL, {"loss": {"l1": 0.5}}],
    "L2 + L1 + VQ + LPIPS": [*ALL, {"loss": {"l1": 0.5}}, PERCEPTUAL],
    "L2 + L1 + VQ + LPIPS + PatchGAN": [*ALL, {"loss": {"l1": 0.5}}, PERCEPTUAL, ADVERSARIAL],
}
# One VAR model on the tokens of each; at 85 tokens an image in every variant, its FLOPs are the same.
SWEEP = {"train": {"batch": 8, "epochs": 1, "precision": "fp32"}, "model.depth": 2,
         "optimizer": {"lr": "4.5e-3 / depth", "weight_decay": 0.05, "clip": 2.0},
         "schedule": {"kind": "wsd", "warmup": 0.2, "hold": 0.6, "end": 0.02}}


def merged(settings):
    result = copy.deepcopy(BASE)
    for layer in settings:
        for section, values in layer.items():
            result.setdefault(section, {}).update(values)
    return result


def run(*command, threads=1):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          env=dict(os.environ, OMP_NUM_THREADS=str(threads)))
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def slug(name):
    return "".join(c if c.isalnum() else "-" for c in name).lower()


class Tokenizer:
    """A tokenizer of one variant and seed, trained; with its figures on images/val."""

    def __init__(self, arguments, name, layers, seed):
        self.name, self.seed = name, seed
        self.folder = arguments.out / f"{slug(name)}-s{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / "tokenizer.safetensors"
        settings = merged(layers)
        settings["train"].update(seed=seed, steps=arguments.steps)
        (self.folder / "settings.yaml").write_text(json.dumps(settings, indent=1) + "\n")
        told = json.loads(self._train(arguments))
        self.step_ms = 1e3 * told["step_s"] if told else math.nan
        self.figures = json.loads(run(BIN / "var_tokenizer", "eval", "--tokenizer", self.file, "--images",
                                      arguments.images / "val", "--picture", self.folder / "scales.png", "--json"))

    def _train(self, arguments):
        kept = self.folder / "training.json"
        if not kept.exists():
            said = run(BIN / "var_tokenizer", "train", self.folder / "settings.yaml", "--images",
                       arguments.images / "train", "--out", self.file, "--json")
            kept.write_text(said)
        return kept.read_text()

    def samples_distance(self, arguments):
        """Trains a VAR model on this tokenizer's tokens, samples it: (training FLOPs, comparison with --reference)."""
        tokens, sweep, samples = self.folder / "tokens.h5", self.folder / "sweep", self.folder / "samples"
        if not tokens.exists():
            run(BIN / "var_data", "tokenize", "--train", arguments.images / "train", "--val", arguments.images / "val",
                "--tokenizer", self.file, "--out", tokens)
        spec = {"name": "study", "output": str(sweep), "defaults": dict(SWEEP, tokens=str(tokens)),
                "runs": [{"train.seed": self.seed}]}
        (self.folder / "sweep.yaml").write_text(json.dumps(spec, indent=1) + "\n")
        run(LAUNCH, "-n", 1, BIN / "var_sweep", self.folder / "sweep.yaml")
        run(BIN / "var_sweep", self.folder / "sweep.yaml", "--csv", self.folder / "csv")
        model = next((sweep / "runs").iterdir())
        if not samples.exists():
            run(BIN / "var_sample", model, "--tokenizer", self.file, "--classes", "all", "--per-class",
                arguments.per_class, "--cfg", arguments.cfg, "--images", samples)
        kept = self.folder / "distance.json"
        if not kept.exists():
            kept.write_text(run(BIN / "var_eval", "fd", "--reference", arguments.reference, "--samples", samples,
                                "--features", "random", "--json"))
        header, row = [line.split(",") for line in (self.folder / "csv/summary.csv").read_text().splitlines()[:2]]
        return float(dict(zip(header, row))["flops"]), json.loads(kept.read_text())


def spread(values, digits):
    """Mean, and the seeds' lowest and highest."""
    text = f"{statistics.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def row(name, tokenizers):
    cells = [name, spread([t.figures["psnr_db"] for t in tokenizers], 2),
             spread([t.figures["all"]["used"] for t in tokenizers], 0),
             spread([t.figures["all"]["perplexity"] for t in tokenizers], 1)]
    for scale in range(len(BASE["model"]["scales"])):
        used, perplexity = ([t.figures["scales"][scale][key] for t in tokenizers] for key in ("used", "perplexity"))
        cells.append(f"{statistics.mean(used):.0f} / {statistics.mean(perplexity):.0f}")
    return cells


def table(head, rows):
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["levers", "losses"])
    parser.add_argument("--images", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1600, help="of each tokenizer")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="variants at a time, a thread each")
    parser.add_argument("--reference", type=Path, help="losses: images that the samples are compared with")
    parser.add_argument("--per-class", type=int, default=100, help="losses: samples a class")
    parser.add_argument("--cfg", type=float, default=0, help="losses: guidance of the samples")
    arguments = parser.parse_args()
    generates = arguments.study == "losses"
    if generates and arguments.reference is None:
        parser.error("losses needs --reference")
    variants = LOSSES if generates else LEVERS
    jobs = [(name, layers, seed) for seed in range(arguments.seeds) for name, layers in variants.items()]

    def job(parts):
        tokenizer = Tokenizer(arguments, *parts)
        print(f"{tokenizer.name}, seed {tokenizer.seed}: {tokenizer.figures['psnr_db']:.2f} dB", file=sys.stderr)
        return tokenizer, tokenizer.samples_distance(arguments) if generates else None

    with ThreadPoolExecutor(arguments.jobs) as pool:
        done = list(pool.map(job, jobs))
    sides = [f"{side} x {side}" for side in BASE["model"]["scales"]]
    head = ["variant", "PSNR, dB", "codes used", "perplexity", *[f"{side}: used / perplexity" for side in sides]]
    rows = [row(name, [t for t, _ in done if t.name == name]) for name in variants]
    if generates:
        name = done[0][1][1]["frechet"]["name"]
        head += [name, "precision", "recall", "VAR FLOPs"]
        for cells in rows:
            results = [result for t, result in done if t.name == cells[0]]
            cells += [spread([r["frechet"]["value"] for _, r in results], 3), spread([r["precision"] for _, r in results], 3),
                      spread([r["recall"] for _, r in results], 3), f"{results[0][0]:.3g}"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
