"""Comparisons with the stored reference values of tests/fixtures: the rules of tests/support/{hash_weights,parity}.hpp."""

import functools
import math

import numpy as np
import torch

GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def hash_k(name, count, seed):
    """k_0 ... k_{count-1}: 24 bits each, from a name."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 & MASK
    h ^= seed * GOLDEN & MASK
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (z ^ (z >> np.uint64(31))) >> np.uint64(40)


@functools.cache
def hash_weight(name, shape):
    v = torch.from_numpy(2.0 * (hash_k(name, math.prod(shape), 1) / 16777216.0) - 1.0).view(shape)
    if name.endswith("scale_mul_1H11"):
        v = math.log(4) + 0.1 * v
    elif name in ("pos_start", "pos_1LC", "lvl_embed.weight"):
        v = 0.5 * v
    elif len(shape) == 1:
        v = 0.05 * v
    elif name not in ("quantize.embedding.weight", "class_emb.weight"):
        v = v * math.sqrt(3.0 / math.prod(shape[1:]))
    return v.float()


def sample_places(key, numel, count):
    return torch.from_numpy((hash_k("sample." + key, count, 0) * np.uint64(numel) >> np.uint64(24)).astype(np.int64))


class Parity:
    """Counts checks and failures. Where a reference has two rows, the last (float64) one is compared with."""

    def __init__(self, name):
        self.name, self.checks, self.worst, self.worst_name, self.failures = name, 0, 0.0, "none", []

    def note(self, what, error, tolerance):
        self.checks += 1
        if not error <= tolerance:
            self.failures.append(f"{self.name} {what}: off by {error:.2e}, allowed {tolerance:.0e}")
        if not error <= self.worst:
            self.worst, self.worst_name = error, what

    def tensor(self, what, got, want, tolerance):
        """Largest difference over largest magnitude."""
        if got.shape != want.shape:
            self.failures.append(f"{self.name} {what}: shape {tuple(got.shape)}, expected {tuple(want.shape)}")
            return
        self.note(what, float((got.double() - want.double()).abs().max() / want.double().abs().max()), tolerance)

    def equal(self, what, got, want):
        self.note(what, float((got != want).sum()), 0)

    def scalar(self, what, got, want, tolerance):
        self.note(what, abs(float(got) - float(want)) / abs(float(want)), tolerance)

    def stat(self, key, tensor, rows, tolerance):
        """rows [2, 3 + n]: mean, deviation, L2 norm, samples."""
        want, x = rows[-1].double(), tensor.detach().double().flatten()
        samples = x[sample_places(key.removesuffix(".stat"), len(x), len(want) - 3)]
        scale = max(float(want[2]) / math.sqrt(len(x)), float(want[3:].abs().max()))
        errors = [abs(x.mean() - want[0]) / scale, abs(x.std(correction=0) - want[1]) / scale,
                  abs(x.norm() - want[2]) / want[2], (samples - want[3:]).abs().max() / scale]
        self.note(key, float(max(errors)), tolerance)

    def gradient(self, name, tensor, rows, tolerance, prefix="grad."):
        """rows [2, 1 + n]: L2 norm, samples; relative L2 of both, that of samples floored at average ones."""
        want, x = rows[-1].double(), tensor.detach().double().flatten()
        count, norm = len(want) - 1, float(want[0])
        samples = x[sample_places(prefix + name, len(x), count)]
        kept = max(float(want[1:].norm()), norm * math.sqrt(count / len(x)))
        self.note(prefix + name, max(abs(float(x.norm()) - norm) / norm, float((samples - want[1:]).norm()) / kept),
                  tolerance)

    def end(self):
        """Prints the sum; returns the failures."""
        print(f"parity {self.name}: {self.checks} checks, worst relative error {self.worst:.1e} ({self.worst_name})")
        return self.failures
