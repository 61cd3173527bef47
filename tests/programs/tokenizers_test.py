"""A sweep over two tokenizers: trained together, fitted apart."""

import json
import pathlib

import h5py

from support import check, make_images, make_tokens, run, run_folders, scratch

SWEEP = """
name: tokenizers
defaults:
  train: {images: 480, batch: 16}
  model: {width: "32 * depth", heads: depth}
runs:
  - {tokens: [coarse.h5, fine.h5], model.depth: [1, 2, 3]}
  - {tokens: fine.h5, model.depth: 1, data: {tokens: online, images: images/train, tokenizer: fine.safetensors}}
"""


def main():
    with scratch("tokenizers"):
        make_images()
        make_tokens("coarse", scales="1, 2, 4")
        make_tokens("fine", scales="1, 2, 3, 4")
        pathlib.Path("sweep.yaml").write_text(SWEEP)
        run("var_sweep", "sweep.yaml", ranks=2)
        folders = run_folders("results/tokenizers")
        plan = json.loads(pathlib.Path("results/tokenizers/plan.json").read_text())["runs"]
        kinds = set()
        for folder, planned in zip(folders, plan):
            with h5py.File(folder / "run.h5") as file:
                facts = dict(file.attrs)
            with h5py.File(planned["tokens_file"]) as tokens:
                check(facts["tokenizer_fingerprint"] == tokens.attrs["tokenizer_fingerprint"],
                      f"{folder}: not the tokenizer of {planned['tokens_file']}")
            check((facts["tokens_fingerprint"], facts["data_tokens"]) ==
                  (planned["tokens_fingerprint"], planned["data_tokens"]), f"{folder}: run.h5 and plan.json differ")
            kinds.add((facts["tokens_fingerprint"], facts["data_tokens"], facts["tokens_per_image"]))
        check(len(folders) == 7 and sorted(tokens for _, _, tokens in kinds) == [21, 30, 30], f"kinds: {kinds}")

        done = run("var_fit", "results/tokenizers", "--no-figures", "--resamples", 100)
        fit = json.loads(pathlib.Path("results/tokenizers/fit/fit.json").read_text())
        check({each["name"]: len(each["runs"]) for each in fit["kinds"]} == {"coarse": 3, "fine": 3, "fine-online": 1},
              f"kinds of the fit: {fit['kinds']}")
        for each in fit["kinds"]:
            check(("fit" in each) == (each["name"] != "fine-online"), f"{each['name']} was fitted, or not")
            check("fit" not in each or len(each["fit"]["runs"]) == 3, f"{each['name']}: other runs in its fit")
        check("not fitted: fine-online: 1 size of role main (d1)" in done.stdout, done.stdout)
        check(len(fit["not_comparable"]) == 2 and fit["not_comparable"][0] in done.stdout, done.stdout)


main()
