"""One sweep at 1, 2 and 3 ranks: the same losses, gradient norms and weights but for roundings.

The batch of 16 does not divide by 3. Sums over the batch are added in another order at each number of
ranks, so the bounds are those of float32 roundings over 20 steps, with an order of magnitude to spare.
"""

import argparse
import pathlib

import numpy as np

from support import (check, make_images, make_tokens, run, run_folders, scratch, state, tables)

SWEEP = """
name: layout
placement: whole
defaults:
  tokens: tokens.h5
  train: {{batch: 16, images: {images}}}
  optimizer: {{lr: "6e-3 / depth"}}
  model: {{drop_path: 0.1, adaln_gamma_init: 1e-3}}
  eval: {{points: 5}}
runs:
  - {{model.depth: [1, 2]}}
"""

# Gates that start at 1e-3 rather than 1e-5: the smaller the gradients inside a block, the more of what Adam
# makes of them is roundings (at 1e-5 the worst tensor is at 9e-6 instead of 3e-6).
LOSS, GRADIENT, WEIGHTS = 1e-6, 5e-6, 1e-5  # relative
# First moments this far below the gradient as a whole are roundings around a true zero.
NO_GRADIENT = 1e-8


def relative(mine, expected):
    """The largest relative difference of two columns."""
    return float(np.max(np.abs(mine - expected) / np.abs(expected)))


def distance(mine, expected):
    """Relative L2 distance of two tensors."""
    mine, expected = mine.astype(np.float64), expected.astype(np.float64)
    return float(np.linalg.norm(mine - expected) / max(np.linalg.norm(expected), 1e-30))


def without_gradient(tensors):
    """Names of parameters whose gradient is zero but for roundings: Adam makes noise of them."""
    moments = {name: np.linalg.norm(tensor) for name, tensor in tensors.items() if "exp_avg." in name}
    check(moments, f"no first moments among {list(tensors)[:4]}...")
    whole = np.linalg.norm(list(moments.values()))
    return {"param." + name.split("exp_avg.")[1] for name, norm in moments.items()
            if norm < NO_GRADIENT * whole}


def compare(folder, expected, bounds_hold):
    """The worst loss, gradient norm and weight tensor of one run against the same at one rank."""
    mine, theirs = tables(folder), tables(expected)
    check(len(mine["steps"]) == len(theirs["steps"]), f"{folder}: another number of steps")
    losses = [relative(mine[table][column], theirs[table][column])
              for table in ("steps", "eval") for column in ("loss_mean", "loss_tail")]
    gradient = relative(mine["steps"]["grad_norm"], theirs["steps"]["grad_norm"])
    mine, theirs = state(folder), state(expected)
    excluded = without_gradient(theirs)
    weights = {name: distance(mine[name], theirs[name]) for name in theirs
               if name.startswith("param.") and name not in excluded}
    worst = max(weights, key=weights.get)
    if bounds_hold:
        check(max(losses) <= LOSS, f"{folder}: losses differ by {max(losses):.2e}")
        check(gradient <= GRADIENT, f"{folder}: gradient norms differ by {gradient:.2e}")
        check(weights[worst] <= WEIGHTS, f"{folder}: {worst} differs by {weights[worst]:.2e}")
    return max(losses), gradient, weights[worst], worst, excluded


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20,
                        help="beyond 20 the bounds are not asked for, only printed")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 3])
    arguments = parser.parse_args()
    with scratch("layout"):
        make_images()
        make_tokens()
        pathlib.Path("sweep.yaml").write_text(SWEEP.format(images=16 * arguments.steps))
        for ranks in [1, *arguments.ranks]:
            run("var_sweep", "sweep.yaml", "--set", f"output=ranks-{ranks}", ranks=ranks)
        for ranks in arguments.ranks:
            for folder, expected in zip(run_folders(f"ranks-{ranks}"), run_folders("ranks-1"), strict=True):
                loss, gradient, weight, name, excluded = compare(folder, expected, arguments.steps <= 20)
                print(f"layout: {folder.name} at {ranks} ranks against 1, {arguments.steps} steps: losses "
                      f"{loss:.1e}, gradient norms {gradient:.1e}, weights {weight:.1e} ({name}); "
                      f"without gradient: {', '.join(sorted(excluded)) or 'none'}", flush=True)


if __name__ == "__main__":
    main()
