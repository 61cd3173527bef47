"""Weights of the public code in and out: what is exported loads in Python, what Python saves is imported.

Python's torch is the reference on both sides: torch.load(weights_only=True) reads what var_data writes, and torch.save
makes what it reads.
"""

import json
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import safetensors.numpy

import torch_python
from support import BAD_INPUT, SOURCE, check, make_images, run, run_folders, scratch, state

FIXTURES = SOURCE / "tests/fixtures"
TOKENIZER = """
model: {image_side: 8, channels: 32, channel_mult: [1, 2], groups: 32, code_width: 8, vocabulary: 64, scales: [1, 2, 4],
        phis: 2}
train: {steps: 40, batch: 8}
codebook: {start_step: 5, kmeans_images: 16}
"""
SWEEP = """
name: weights
defaults:
  tokens: tokens.h5
  train: {images: 96, batch: 16}
  model: {width: 32, heads: 2}
runs:
  - {model.depth: 2}
  - {model.depth: 1, model.shared_adaln: true}
"""

# Runs where torch can be imported: NAME.pth to NAME.json (order, dtypes, shapes) and NAME.npz (values), and back
# through torch.save in the forms that public files have.
PYTHON = r"""
import json, sys, zipfile
import numpy as np, torch
for name in sys.argv[1:]:
    values = torch.load(name + ".pth", weights_only=True)
    mapped = torch.load(name + ".pth", weights_only=True, mmap=True)
    assert type(values).__name__ == "OrderedDict"
    assert all(torch.equal(values[key], mapped[key]) and values[key].is_contiguous() for key in values)
    with zipfile.ZipFile(name + ".pth") as archive:
        assert archive.testzip() is None
    listed = [[k, str(v.dtype).removeprefix("torch."), list(v.shape)] for k, v in values.items()]
    json.dump(listed, open(name + ".json", "w"))
    np.savez(name + ".npz", **{k: v.numpy() for k, v in values.items()})

    module = torch.nn.Module()
    for key, value in values.items():
        place = module
        *path, last = key.split(".")
        for part in path:
            if part not in place._modules:
                place.add_module(part, torch.nn.Module())
            place = place._modules[part]
        if value.is_floating_point():
            place.register_parameter(last, torch.nn.Parameter(torch.zeros_like(value)))
        else:
            place.register_buffer(last, torch.zeros_like(value))
    module.load_state_dict(values, strict=True)
    torch.save(module.state_dict(), name + "-again.pth")
    torch.save(module.state_dict(), name + "-older.pth", _use_new_zipfile_serialization=False)
    torch.save({k: torch.nn.Parameter(v.t().contiguous().t()) if v.dim() == 2 and v.is_floating_point() else v
                for k, v in values.items()}, name + "-strided.pth")
    half = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in values.items()}
    torch.save(half, name + "-half.pth")
    torch.save({"epoch": 3, "iter": 7, "args": {"seed": None, "tblr": 1e-4},
                "trainer": {"config": {"patch_nums": (1, 2, 4)}, "var_wo_ddp": values if "blocks.0.attn.q_bias" in values else {},
                            "vae_local": values if "quant_conv.bias" in values else {}}}, name + "-checkpoint.pth")

class Evil:
    def __reduce__(self):
        return (__import__("os").system, ("touch evil",))
torch.save({"w": torch.zeros(2), "e": Evil()}, "evil.pth")
torch.save(torch.zeros(3), "bare.pth")
torch.save({"w": np.zeros(3)}, "numpy.pth")
torch.save({"w": torch.zeros(3, dtype=torch.complex64)}, "complex.pth")
"""


def prepare():
    make_images(train=48, val=16, side=8)
    pathlib.Path("tokenizer.yaml").write_text(TOKENIZER)
    run("var_tokenizer", "train", "tokenizer.yaml", "--images", "images/train", "--out", "tok.safetensors")
    run("var_data", "tokenize", "--train", "images/train", "--val", "images/val", "--tokenizer", "tok.safetensors",
        "--out", "tokens.h5")
    pathlib.Path("sweep.yaml").write_text(SWEEP)
    run("var_sweep", "sweep.yaml")
    return run_folders("results/weights")


def fingerprint_of(output):
    return output.stdout.split("fingerprint ")[1].split()[0]


def tensors_of(path):
    return safetensors.numpy.load_file(path)


def check_same(first, second, what):
    check(list(sorted(first)) == list(sorted(second)), f"{what}: other keys")
    for name, tensor in first.items():
        check(tensor.dtype == second[name].dtype and tensor.shape == second[name].shape
              and tensor.tobytes() == second[name].tobytes(), f"{what}: {name} differs")


def check_var(name, folder, depth, public):
    """NAME.pth has the run's weights to the bit, and order, dtypes and ranks of the public state dict."""
    listed = json.loads(pathlib.Path(f"{name}.json").read_text())
    expected = [entry for entry in public if not entry[0].startswith("blocks.") or int(entry[0].split(".")[1]) < depth]
    check([(key, dtype, len(shape)) for key, dtype, shape in listed] ==
          [(key, dtype, len(shape)) for key, kind, dtype, shape in expected], f"{name}.pth: not the public keys in order")
    values, weights = np.load(f"{name}.npz"), state(folder)
    for key, kind, _, _ in expected:
        if kind == "p":
            check(values[key].tobytes() == weights[f"param.{key}"].tobytes(), f"{name}.pth: {key} differs from the run's")
    levels = np.repeat([0, 1, 2], [1, 4, 16])
    check((values["lvl_1L"] == levels[None]).all(), f"{name}.pth: lvl_1L")
    mask = np.where(levels[:, None] >= levels[None], np.float32(0), -np.inf)
    check((values["attn_bias_for_masking"] == mask[None, None]).all(), f"{name}.pth: attn_bias_for_masking")
    check(not values["blocks.0.attn.zero_k_bias"].any(), f"{name}.pth: zero_k_bias")


def check_tokenizer(public):
    listed = json.loads(pathlib.Path("tok.json").read_text())
    names = [key for key, _, _ in listed]
    public_names = [entry[0] for entry in public]
    shared = [key for key in names if key in public_names]
    check(shared == [key for key in public_names if key in names] and len(shared) > 60, "tok.pth: not the public order")
    check(names.index("quantize.ema_vocab_hit_SV") + 1 == names.index("quantize.quant_resi.qresi_ls.0.weight"),
          "tok.pth: the counts are not where the public class has them")
    values, weights = np.load("tok.npz"), tensors_of("tok.safetensors")
    check_same(dict(values), weights, "tok.pth")


def check_imports(name, fingerprint, *options):
    """Whatever Python saves of NAME.pth is imported as the same weights, to the bit."""
    first = None
    for form in ("", "-again", "-older", "-strided", "-checkpoint"):
        out = f"{name}{form}-in.safetensors"
        done = run("var_data", "import", f"{name}{form}.pth", "--out", out, *options,
                   *(["--part", "vae" if name == "tok" else "var"] if form == "-checkpoint" else []))
        first = first or tensors_of(out)
        check_same(first, tensors_of(out), out)
        check(fingerprint in (None, fingerprint_of(done)), f"{out}: another fingerprint")
        fingerprint = fingerprint_of(done)
    run("var_data", "import", f"{name}-half.pth", "--out", "half.safetensors", *options)
    for key, tensor in tensors_of("half.safetensors").items():
        check(not (tensor.view(np.uint32) & 0xffff).any(), f"{name}-half.pth: {key} is not bfloat16 widened")
        check(np.allclose(tensor, first[key], rtol=2**-8), f"{name}-half.pth: {key}")
    return first, fingerprint


def check_round_trip(name):
    """import, export, import: the same bytes."""
    source = f"{name}-in.safetensors"
    run("var_data", "export", source, "--out", f"{name}-2.pth")
    check(pathlib.Path(f"{name}-2.pth").read_bytes() == pathlib.Path(f"{name}.pth").read_bytes(), f"{name}: exported otherwise")


def check_refusals():
    def refuses(words, *args):
        done = run("var_data", *args, "--out", "never.safetensors", code=BAD_INPUT)
        check(words in done.stderr and done.stderr.count("\n") == 1, f"{args}: said {done.stderr}")
        check(not list(pathlib.Path().glob("never*")), f"{args}: left a file")

    refuses("names posix.system", "import", "evil.pth")
    check(not pathlib.Path("evil").exists(), "evil.pth was run")
    refuses("bare.pth: holds a tensor, expected a dict", "import", "bare.pth")
    refuses("names numpy", "import", "numpy.pth")
    refuses("names torch.ComplexFloatStorage", "import", "complex.pth")
    refuses("choose by --part var or --part vae", "import", FIXTURES / "pth/trainer_ckpt_tiny.pth")
    refuses("trainer.vae_local: no key encoder.down.0", "import", FIXTURES / "pth/trainer_ckpt_tiny.pth", "--part", "vae")
    refuses("holds a VAR, asked for is a tokenizer", "import", "w0.pth", "--part", "vae")
    refuses("give them by --scales", "import", "tok.pth")
    refuses("needs no import", "import", "tok.safetensors")
    refuses("a tokenizer is a safetensors file already", "export", "tok.safetensors")
    refuses("neither a public VAR", "import", FIXTURES / "pth/legacy_format.pth")
    truncated = pathlib.Path("w0.pth").read_bytes()
    pathlib.Path("cut.pth").write_bytes(truncated[:len(truncated) // 2])
    refuses("cut.pth: not a zip archive, or a damaged one", "import", "cut.pth")
    damaged = bytearray(truncated)
    damaged[len(damaged) // 2] ^= 1
    pathlib.Path("damaged.pth").write_bytes(damaged)
    refuses("is damaged", "import", "damaged.pth")


def check_fine_tuning():
    """A run from imported weights begins where the run that was exported has ended."""
    sweep = pathlib.Path("tune.yaml")
    sweep.write_text(SWEEP.replace("name: weights", "name: tune").split("runs:")[0] +
                     "runs:\n  - {model.depth: 2, model.init_from: w0-in.safetensors, optimizer.lr: 1e-9}\n")
    run("var_sweep", "tune.yaml")
    folder = run_folders("results/tune")[0]
    trained, begun = state(folder), tensors_of("w0-in.safetensors")
    worst = max(np.abs(trained[f"param.{key}"] - tensor).max() for key, tensor in begun.items())
    check(worst < 1e-6, f"tune: the weights are {worst} from where they were to begin")
    text = (folder / "config.yaml").read_text()
    check('init_from: "w0-in.safetensors"' in text, "tune: config.yaml has no init_from")
    with h5py.File(folder / "run.h5", "r") as file:
        check(file.attrs["init_from"] == "w0-in.safetensors" and file.attrs["init_fingerprint"] in text,
              "tune: run.h5 does not say what the run began with")
    bad = run("var_sweep", "tune.yaml", "--plan", "--set", "runs=[{model.depth: 1, model.init_from: w0-in.safetensors}]",
              code=BAD_INPUT)
    check("model.init_from: w0-in.safetensors: has blocks.1" in bad.stderr, f"tune: said {bad.stderr}")


def main():
    with scratch("weights") as folder:
        folders = prepare()
        names = json.loads((FIXTURES / "names.json").read_text())
        run("var_data", "export", folders[0], "--out", "w0.pth")
        run("var_data", "export", folders[1], "--out", "w1", "--format", "pth")
        pathlib.Path("w1").rename("w1.pth")
        run("var_data", "export", "tok.safetensors", "--out", "tok.pth")
        (folder / "hollow").mkdir()
        python = subprocess.run([sys.executable, "-c", PYTHON, "w0", "w1", "tok"], check=False, text=True,
                                capture_output=True, env=torch_python.environment(folder / "hollow"))
        check(python.returncode == 0, f"Python's torch: {python.stderr}")
        check_var("w0", folders[0], 2, names["var_d16_256"]["state_dict"])
        check_var("w1", folders[1], 1, names["var_d36_512_saln"]["state_dict"])
        check_tokenizer(names["vqvae_ch160"]["state_dict"])

        run("var_data", "export", folders[0], "--out", "w0.safetensors")
        imported, _ = check_imports("w0", None)
        check_same(imported, tensors_of("w0.safetensors"), "imported and exported")
        check_imports("w1", None)
        tokenizer, _ = check_imports("tok", None, "--scales", "1,2,4")
        check_same(tokenizer, tensors_of("tok.safetensors"), "the imported tokenizer")
        check_round_trip("w0")
        check_round_trip("tok")
        check_refusals()
        check_fine_tuning()


main()
