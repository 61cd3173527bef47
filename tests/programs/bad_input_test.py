"""Every mistake a user can make at the level of programs: one sentence that names the place, exit code 2,
and nothing half-written.
"""

import json
import pathlib
import re

from support import (DONE, SOURCE, Cases, check, listing, make_images, make_tokens, newest_checkpoint, run, run_folders,
                     scratch)

SWEEP = """name: bad
output: results/bad
defaults:
  tokens: tokens.h5
  train: {batch: 8, images: 16}
  model: {label_drop: 0.1}
runs:
  - {model.depth: 1}
"""
PLAIN = "var_sweep", "sweep.yaml"


def edited(old, new):
    check(old in SWEEP, f"the test edits {old!r}, which its sweep lacks")
    pathlib.Path("edited.yaml").write_text(SWEEP.replace(old, new))
    return "var_sweep", "edited.yaml"


def sweep_files(cases):
    def fault(what, old, new, pattern):
        for how in ((), ("--plan",)):
            cases.refuses(f"{what} {how}", (*edited(old, new), *how), pattern)

    fault("misspelt key", "batch: 8", "bacth: 8", r"edited\.yaml:5: .*bacth.*did you mean train\.batch")
    fault("unknown key", "  model:", "  wheels: 4\n  model:", r"edited\.yaml:6: .*unknown key .*wheels")
    fault("unused key", "  model:", "  schedule: {kind: cosine, hold: 0.5}\n  model:", r"edited\.yaml:6: .*hold")
    fault("duplicated key", "batch: 8", "batch: 8, batch: 9", r"edited\.yaml:5: .*batch")
    fault("mistyped value", "batch: 8", "batch: eight", r"edited\.yaml:5: .*train\.batch.*eight")
    fault("value out of range", "label_drop: 0.1", "label_drop: 1.5", r"edited\.yaml:6: .*label_drop.*1\.5")
    fault("budgets that are no numbers", "batch: 8", "batch: 8, keep_at: 10k", r"edited\.yaml:5: .*train\.keep_at.*10k")
    fault("groups that do not divide the ranks", "  model:", "  parallel: {mode: hybrid, shards: 2}\n  model:",
          r"edited\.yaml:9: .*parallel\.shards is 2.*1 rank")
    fault("shards that nothing reads", "  model:", "  parallel: {shards: 2}\n  model:",
          r"edited\.yaml:9: .*parallel\.shards is 2.*only hybrid")
    fault("depth 0", "depth: 1}", "depth: 0}", r"edited\.yaml:8: .*model\.depth.* 0")
    fault("negative depth", "depth: 1}", "depth: -4}", r"edited\.yaml:8: .*model\.depth.*-4")
    fault("broken YAML", "runs:", "runs: [", r"edited\.yaml:\d+")
    cases.refuses("misspelt --set", (*PLAIN, "--set", "defaults.train.bach=9"), r"--set.*train\.bach.*did you mean")
    cases.refuses("missing sweep file", ("var_sweep", "nowhere.yaml"), r"nowhere\.yaml")
    cases.refuses("no sweep file", ("var_sweep",), r"no sweep file")
    cases.refuses("unknown device", (*PLAIN, "--plan", "--device", "h20"), r"--device h20.*h200")
    cases.refuses("unknown run", (*PLAIN, "--only", "d9-s0-000000"), r"--only d9-s0-000000.*the sweep has d1-")
    cases.refuses("no time to show a sign of life", (*PLAIN, "--claim-expiry", "0"), r"--claim-expiry")
    cases.refuses("bad key on two ranks", edited("batch: 8", "bacth: 8"), r"edited\.yaml:5: .*bacth", ranks=2)


def token_files(cases):
    whole = pathlib.Path("tokens.h5").read_bytes()
    pathlib.Path("cut.h5").write_bytes(whole[: len(whole) // 2])
    pathlib.Path("text.h5").write_text("not HDF5\n")
    for name in ("cut", "text", "nowhere"):
        for ranks in (0, 2):
            cases.refuses(f"{name}.h5 on {ranks} ranks", (*PLAIN, "--set", f"defaults.tokens={name}.h5"),
                          rf"{name}\.h5", ranks=ranks)
        cases.refuses(f"inspect {name}.h5", ("var_data", "inspect", f"{name}.h5"), rf"{name}\.h5")


def places(cases):
    pathlib.Path("blocker").write_text("a file, where a folder is wanted\n")
    for ranks in (0, 2):
        cases.refuses(f"results folder not writable, {ranks} ranks", (*PLAIN, "--set", "output=blocker/x"),
                      r"blocker", ranks=ranks)
    cases.refuses("MPI of another make", PLAIN, r"3 ranks.*MPI reports 1", env={"OMPI_COMM_WORLD_SIZE": "3"})
    cases.refuses("ranks that were not started", (*PLAIN, "--ranks", "7"), r"--ranks 7")


def after_a_run(cases):
    """Mistakes that need a finished run to be made."""
    run(*PLAIN)
    folder = run_folders("results/bad")[0]
    cases.refuses("claimed by another sweep", edited("name: bad", "name: other"), r"results/bad.*sweep bad.*other")
    cases.refuses("plan of another sweep", (*edited("name: bad", "name: other"), "--plan"), r"results/bad")

    for program in ("tokens-of-another-seed", "tokens-of-other-scales"):
        cases.refuses(f"var_sample with {program}",
                      ("var_sample", folder, "--tokenizer", f"{program}.safetensors", "--tokens", f"{program}.h5"),
                      rf"trained on other tokens than {program}\.h5")
        cases.refuses(f"var_sample with the tokenizer of {program}",
                      ("var_sample", folder, "--tokenizer", f"{program}.safetensors"), r"not the tokenizer that made")
    cases.refuses("export of no run", ("var_data", "export", "images", "--out", "w.safetensors"),
                  r"images: has no checkpoints")
    cases.refuses("export of a step without checkpoint",
                  ("var_data", "export", folder, "--step", 77, "--out", "w.safetensors"), r"no checkpoint of step 77")
    cases.refuses("one size for a law of three constants", ("var_fit", "results/bad"),
                  r"(?i)1 (distinct )?size.*3|3.*constants.*1")
    cases.refuses("registering without sizes", ("var_fit", "results/bad", "--register-prediction"), r"results/bad|size")
    cases.refuses("no sweep there", ("var_fit", "images"), r"images")

    def goes_on():  # as after a kill between the last checkpoint and the word "done"
        path = folder / "status.json"
        path.write_text(path.read_text().replace('"done"', '"running"'))

    untouched = folder / "checkpoints"
    manifest = newest_checkpoint(folder) / "manifest.json"
    good = manifest.read_text()
    facts = json.loads(good)

    goes_on()
    manifest.write_text(json.dumps(facts | {"config_hash": "0" * 64}))
    cases.refuses("checkpoint of another configuration", PLAIN, r"step-\d+: .*another configuration",
                  untouched=untouched)
    manifest.write_text("{")
    goes_on()
    cases.refuses("damaged manifest", PLAIN, r"manifest\.json", untouched=untouched)
    manifest.write_text(good)

    tensors = manifest.parent / "rank-00000.safetensors"
    data = tensors.read_bytes()
    for what, content, pattern in (("cut", data[:-1000], r"bytes"), ("flipped", data[:-1] + b"\x7f", r"checksum")):
        tensors.write_bytes(content)
        for ranks in (0, 2):
            goes_on()
            cases.refuses(f"{what} weights on {ranks} ranks", PLAIN, rf"rank-00000\.safetensors.*{pattern}",
                          ranks=ranks, untouched=untouched)
            (folder / "status.json").unlink()  # forget the failures
            run(*PLAIN, "--status")
            (folder / "status.json").write_text('{"state": "done", "step": 2, "steps": 2}')
    tensors.write_bytes(data)

    config = folder / "config.yaml"
    kept = config.read_text()
    config.write_text(re.sub(r'identity: "\w{6}', 'identity: "000000', kept))
    goes_on()
    cases.refuses("run folder of other settings", PLAIN, r"config\.yaml.*other settings",
                  untouched=untouched)
    config.write_text(kept)
    goes_on()
    run(*PLAIN)  # and all is well again


def plans(cases):
    """Planning needs neither tokens nor a GPU nor MPI, and says where its hours come from."""
    before = listing()
    for command in ((*edited("tokens: tokens.h5", "tokens: missing.h5"), "--plan", "--set", "assume={images: 100}"),
                    ("var_sweep", SOURCE / "sweeps/depth.yaml", "--plan", "--device", "h200", "--ranks", "64")):
        done = run(*command, code=None)
        text = done.stdout
        if done.returncode != DONE or not re.search(r"(?i)hours", text) or "assumed" not in text:
            cases.failed.append(f"{command}: exit code {done.returncode}\n{text}{done.stderr}")
    check(re.search(r"h200 bf16 peak x [\d.]+ assumed", text), f"the plan does not say whose hours:\n{text}")
    pathlib.Path("edited.yaml").unlink()
    after = listing()
    before.pop("edited.yaml", None)
    check(before == after, f"--plan wrote {sorted(after.keys() - before.keys())}")


def main():
    cases = Cases()
    with scratch("bad-input"):
        make_images()
        make_tokens()
        make_tokens("tokens-of-another-seed", seed=1)
        make_tokens("tokens-of-other-scales", scales="1, 4")
        pathlib.Path("sweep.yaml").write_text(SWEEP)
        pathlib.Path("edited.yaml").write_text(SWEEP)
        for group in (sweep_files, token_files, places, plans):
            group(cases)
            check(not pathlib.Path("results").exists(), f"{group.__name__} made a results folder")
        after_a_run(cases)
        cases.end()
    print(f"bad input: {len(cases.said)} mistakes: exit code 2, one sentence that names the place, nothing written")


if __name__ == "__main__":
    main()
