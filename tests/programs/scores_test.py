"""var_eval over ranks: features and figures are the same to the bit at one, two and three of them, whether a set comes
as images or as kept features; an image that one rank cannot read ends all of them with one sentence.
"""

import json
import pathlib

from support import BAD_INPUT, check, make_images, run, scratch

NETWORK = ["--features", "random", "--batch", "4"]


def figures(*options, ranks):
    done = run("var_eval", "fd", "--json", *options, ranks=ranks)
    values = json.loads(done.stdout)
    return {key: values[key] for key in ("frechet", "spatial_frechet", "kid", "precision", "recall", "network")}


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

        torn = sorted(pathlib.Path("other/val").glob("*/*.png"))[-1]
        torn.write_bytes(torn.read_bytes()[:60])
        failed = run("var_eval", "features", "--images", "other/val", *NETWORK, "--out", "torn.h5", ranks=3,
                     code=BAD_INPUT)
        check(failed.stderr.count("not a readable image") == 1 and torn.name in failed.stderr, failed.stderr)
        check(not list(pathlib.Path(".").glob("torn.h5*")), "an incomplete file is left")


if __name__ == "__main__":
    main()
