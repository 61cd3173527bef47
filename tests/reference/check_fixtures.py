"""The PyTorch model that steps are timed against (var_torch.py) computes what the public code does: names, logits, losses,
gradients and twenty steps, against the fixtures that the C++ model is held to, with the same tolerances.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(os.environ.get("VARSCALE_SOURCE", pathlib.Path(__file__).parents[2])).resolve()
FIXTURES = SOURCE / "tests/fixtures"
ACTIVATION, LOSS, GRADIENT, WEIGHTS = 1e-5, 2e-6, 5e-5, 1e-5  # as tests/models/*_parity_test.cpp
# Products in bf16 round at 4e-3 each; a mean over 1,360 tokens and a norm over all weights average most of it out.
BF16_LOSS, BF16_NORM = 1e-3, 1e-2


def hash_model(attention, **shape):
    shape = Shape(**shape)
    model = Var(shape, ATTENTIONS[attention](shape.scales, PRECISIONS["fp32"]))
    fill(model)
    return model


def fill(model):
    model.load_state_dict({name: hash_weight(name, tuple(p.shape)) for name, p in model.named_parameters()})


def load(name):
    return {key: torch.from_numpy(value) for key, value in load_file(FIXTURES / name).items()}


def check_names(parity):
    """The public state dict without its buffers and all but two blocks."""
    public = json.loads((FIXTURES / "names.json").read_text())["var_d16_256"]["state_dict"]
    expected = {name for name, kind, _, _ in public
                if kind == "p" and (not name.startswith("blocks.") or name.split(".")[1] in ("0", "1"))}
    got = {name for name, _ in Var(Shape(2), None).named_parameters()}
    parity.note(f"names {got ^ expected}", len(got ^ expected), 0)


def check_pass(parity, stored, prefix, model):
    """Logits, losses by map and gradients of one batch."""
    tokens_BL, shape = stored["tokens"], model.shape
    logits_BLV = model(stored["label"], stored["x_BLCv_wo_first_l"])
    parity.stat(prefix + "logits.stat", logits_BLV, stored[prefix + "logits.stat"], ACTIVATION)
    loss_BL = F.cross_entropy(logits_BLV.flatten(0, 1), tokens_BL.flatten(), reduction="none").view(tokens_BL.shape)
    parity.scalar("loss", loss_BL.detach().mean(), stored[prefix + "metrics"][1][0], LOSS)
    by_map = [part.mean() for part in loss_BL.split([side * side for side in shape.scales], 1)]
    parity.tensor("loss by map", torch.stack(by_map).detach(), stored[prefix + "ce_per_scale"][1], LOSS)
    names, parameters = zip(*model.named_parameters())
    gradients = torch.autograd.grad(loss_BL.mean(), parameters)
    for name, gradient in zip(names, gradients):
        parity.gradient(name, gradient, stored[f"{prefix}grad.{name}"], GRADIENT)
    norm = torch.stack([gradient.double().norm() for gradient in gradients]).norm()
    parity.scalar("gradient norm", norm, stored[prefix + "grad_total_norm"][1], GRADIENT)
    return logits_BLV.detach()


def check_depth_2(parity, attention):
    stored = load("var_d2.safetensors")
    model = hash_model(attention, depth=2, scales=(1, 2, 3, 4), classes=10)
    parity.tensor("logits", check_pass(parity, stored, "l21_saln0.", model), stored["l21_saln0.logits"], ACTIVATION)


def check_depth_4(parity, attention):
    stored = load("var_d4_256.safetensors")
    logits_BLV = check_pass(parity, stored, "", hash_model(attention, depth=4))
    parity.tensor("rows", logits_BLV[:, stored["logits.pos"], :1024], stored["logits.rows"], ACTIVATION)
    parity.equal("argmax", logits_BLV.argmax(-1), stored["argmax"])


def check_bf16(parity, attention):
    """Depth 4 under autocast."""
    stored = load("var_d4_256.safetensors")
    training = Training(Shape(4), attention, "bf16", drop=False)
    fill(training.model)
    loss, norm = training.step(stored["label"], stored["x_BLCv_wo_first_l"], stored["tokens"])
    parity.scalar("loss", loss, stored["metrics"][1][0], BF16_LOSS)
    parity.scalar("gradient norm", norm, stored["grad_total_norm"][1], BF16_NORM)
    parity.note("computed in bf16", float(loss == stored["metrics"][1][0].float()), 0)


def teacher_input(scales, tokens_BL):
    """The input of all maps but the first, by the hash-made codebook and phi: one phi a scale of four."""
    codes_VE, side = hash_weight("quantize.embedding.weight", (4096, 32)), scales[-1]
    f_hat = torch.zeros(len(tokens_BL), 32, side, side)
    inputs = []
    for k, tokens in enumerate(tokens_BL.split([s * s for s in scales], 1)[:-1]):
        h = codes_VE[tokens].transpose(1, 2).reshape(-1, 32, scales[k], scales[k])
        h = F.interpolate(h, (side, side), mode="bicubic")
        name = f"quantize.quant_resi.qresi_ls.{k}"
        phi = F.conv2d(h, hash_weight(name + ".weight", (32, 32, 3, 3)), hash_weight(name + ".bias", (32,)), padding=1)
        f_hat = f_hat + 0.5 * h + 0.5 * phi
        inputs.append(F.adaptive_avg_pool2d(f_hat, scales[k + 1]).flatten(2).transpose(1, 2))
    return torch.cat(inputs, 1)


def check_training(parity, prefix, clip):
    """Twenty updates against a run in float64."""
    stored, scales = load("train_d2.safetensors"), (1, 2, 3, 4)
    training = Training(Shape(2, scales, classes=10), lr=1e-3, clip=clip, drop=False)
    fill(training.model)

    def check_weights(key):
        for name, parameter in training.model.named_parameters():
            parity.gradient(name, parameter, stored[f"{key}.{name}"], WEIGHTS, "param.")

    for step in range(20):
        tokens_BL = stored["tokens"][step % 4]
        loss, norm = training.step(stored["labels"][step % 4], teacher_input(scales, tokens_BL), tokens_BL)
        parity.scalar(f"loss of step {step}", loss, stored[prefix + "loss"][-1][step], LOSS)
        parity.scalar(f"gradient norm of step {step}", norm, stored[prefix + "grad_norm"][-1][step], GRADIENT)
        if not prefix and step == 0:
            check_weights("step1")
    if not prefix:
        check_weights("final")


def main():
    failures = []

    def check(name, function, *arguments):
        parity = Parity(name)
        function(parity, *arguments)
        failures.extend(parity.end())

    check("names", check_names)
    for attention in ("mask", "products", "prefix"):
        check(f"depth 2, {attention}", check_depth_2, attention)
        check(f"depth 4, {attention}", check_depth_4, attention)
        check(f"depth 4 in bf16, {attention}", check_bf16, attention)
    check("training", check_training, "", 2.0)
    check("training, clipped at 0.5", check_training, "clip0.5.", 0.5)
    if failures:
        sys.exit("FAILED:\n" + "\n".join(failures))


if sys.argv[1:] == ["--with-torch"]:
    import torch
    import torch.nn.functional as F
    from safetensors.numpy import load_file

    from parity import Parity, hash_weight
    from var_torch import ATTENTIONS, PRECISIONS, Shape, Training, Var
    main()
else:
    sys.path.append(str(SOURCE / "tests/programs"))
    import torch_python
    with tempfile.TemporaryDirectory(prefix="varscale-reference-") as hollow:
        environment = torch_python.environment(hollow) | {"OMP_NUM_THREADS": "1"}
        sys.exit(subprocess.run([sys.executable, __file__, "--with-torch"], env=environment, check=False).returncode)
