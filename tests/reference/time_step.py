"""Times a training step of var_torch.py, as `var_bench step` times ours: one JSON object on stdout.

    time_step.py --path "mask, compiled" --depth 4 --batch 4 --precision bf16

Where PyTorch cannot run a path, the object has its reason as "unavailable".
"""

import argparse
import json
import statistics
import time

import torch

from var_torch import ATTENTIONS, PRECISIONS, Shape, Training

PATHS = {name + (", compiled" if compiled else ""): (name, compiled) for name in ATTENTIONS for compiled in (False, True)}


def measure(training, batch, warmup, repeats):
    shape = training.shape
    labels_B = torch.randint(0, shape.classes, (batch,))
    teacher_BLE = torch.randn(batch, shape.tokens - shape.scales[0] ** 2, shape.code_width)
    targets_BL = torch.randint(0, shape.vocabulary, (batch, shape.tokens))
    times, losses = [], []
    wait = torch.cuda.synchronize if labels_B.is_cuda else lambda: None
    for _ in range(warmup + repeats):
        wait()
        begin = time.perf_counter()
        loss, _ = training.step(labels_B, teacher_BLE, targets_BL)
        wait()
        times.append(1e3 * (time.perf_counter() - begin))
        losses.append(loss)
    kept = times[warmup:]
    return {"median_ms": statistics.median_low(kept), "min_ms": min(kept), "max_ms": max(kept), "repeats": repeats,
            "first_step_s": times[0] / 1e3, "losses": [float(loss) for loss in losses]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", choices=PATHS, required=True)
    parser.add_argument("--depth", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--precision", choices=PRECISIONS, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    parser.add_argument("--warmup", type=int, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    torch.set_default_device(options.device)
    torch.manual_seed(1)  # the same weights, batch and drops on every path, so that losses can be compared
    attention, compiled = PATHS[options.path]
    result = {**vars(options), "threads": torch.get_num_threads(), "torch": torch.__version__}
    try:
        training = Training(Shape(options.depth), attention, options.precision, compiled)
        result |= measure(training, options.batch, options.warmup, options.repeats)
    except NotImplementedError as error:
        result["unavailable"] = str(error).splitlines()[0]
    print(json.dumps(result))


main()
