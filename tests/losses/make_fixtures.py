"""Makes tests/losses/networks.safetensors: a small DINO transformer, its discriminator and a PatchGAN, written anew.

Run once, from the top folder, with numpy and safetensors:  python tests/losses/make_fixtures.py
Everything is computed in float64 with numpy alone, convolutions and norms as sums; the weights follow the rule of
tests/support/hash_weights.hpp. Kept in float64: features and logits.
"""
import math

import numpy as np
from safetensors.numpy import save_file

GOLDEN, M64 = 0x9E3779B97F4A7C15, (1 << 64) - 1


def hash_v(name, shape):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & M64
    h ^= GOLDEN  # seed 1
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (2 * ((z >> np.uint64(40)).astype(np.float64) / 2**24) - 1).reshape(shape)


def param(name, *shape):
    v = hash_v(name, shape)
    if len(shape) == 1:
        w = 1 + 0.1 * v if name.endswith(".weight") else 0.05 * v
    else:
        w = v * math.sqrt(3 / math.prod(shape[1:]))
    return w.astype(np.float32).astype(np.float64)


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def group_norm(x, groups, weight, bias):
    shape = x.shape
    g = x.reshape(shape[0], groups, -1)
    g = (g - g.mean(2, keepdims=True)) / np.sqrt(g.var(2, keepdims=True) + 1e-5)
    ones = (1, -1) + (1,) * (len(shape) - 2)
    return g.reshape(shape) * weight.reshape(ones) + bias.reshape(ones)


# --- the transformer -----------------------------------------------------------------------------
SIDE, PATCH, WIDTH, HEADS, DEPTH, TAPS = 32, 8, 24, 3, 4, (1, 3)
TOKENS = (SIDE // PATCH) ** 2 + 1
erf = np.vectorize(math.erf)


def layer_norm(x, name):
    centred = x - x.mean(-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return unit * param(name + ".weight", WIDTH) + param(name + ".bias", WIDTH)


def linear(x, name, fan_in, out):
    return x @ param(name + ".weight", out, fan_in).T + param(name + ".bias", out)


def attention(x, name):
    q, k, v = np.split(linear(x, name + ".qkv", WIDTH, 3 * WIDTH), 3, axis=-1)
    d = WIDTH // HEADS
    parts = []
    for h in range(HEADS):
        cut = slice(h * d, (h + 1) * d)
        score = np.einsum("bid,bjd->bij", q[..., cut], k[..., cut]) / math.sqrt(d)
        score = np.exp(score - score.max(-1, keepdims=True))
        parts.append(np.einsum("bij,bjd->bid", score / score.sum(-1, keepdims=True), v[..., cut]))
    return linear(np.concatenate(parts, -1), name + ".proj", WIDTH, WIDTH)


def vit_features(image):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = ((image + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    kernel = param("patch_embed.proj.weight", WIDTH, 3, PATCH, PATCH)
    tokens = [np.broadcast_to(param("cls_token", 1, 1, WIDTH)[:, 0], (len(image), WIDTH))]
    for r in range(0, SIDE, PATCH):
        for c in range(0, SIDE, PATCH):
            patch = x[:, :, r : r + PATCH, c : c + PATCH]
            tokens.append(np.einsum("bcij,ocij->bo", patch, kernel) + param("patch_embed.proj.bias", WIDTH))
    x = np.stack(tokens, 1) + param("pos_embed", 1, TOKENS, WIDTH)
    features = [x]
    for i in range(DEPTH):
        name = f"blocks.{i}."
        x = x + attention(layer_norm(x, name + "norm1"), name + "attn")
        h = linear(layer_norm(x, name + "norm2"), name + "mlp.fc1", WIDTH, 4 * WIDTH)
        x = x + linear(h * (1 + erf(h / math.sqrt(2))) / 2, name + "mlp.fc2", 4 * WIDTH, WIDTH)
        if i in TAPS:
            features.append(x)
    return [(f[:, 1:] + f[:, :1]).transpose(0, 2, 1) for f in features]


# --- its heads -----------------------------------------------------------------------------------
def spectral_conv(x, name, out, kernel):
    weight = param(name + ".weight", out, WIDTH, kernel)
    weight = weight / np.linalg.svd(weight.reshape(out, -1), compute_uv=False)[0]
    y = sum(np.einsum("oc,bcn->bon", weight[:, :, k], np.roll(x, kernel // 2 - k, axis=2)) for k in range(kernel))
    return y + param(name + ".bias", out)[:, None]


def block(x, name, kernel):
    y = spectral_conv(x, name + ".conv", WIDTH, kernel)
    return leaky(group_norm(y, 4, param(name + ".norm.weight", WIDTH), param(name + ".norm.bias", WIDTH)))


def dino_logits(features):
    logits = []
    for i, x in enumerate(features):
        first = block(x, f"heads.{i}.first", 1)
        joined = (block(first, f"heads.{i}.second", 9) + first) / math.sqrt(2)
        logits.append(spectral_conv(joined, f"heads.{i}.cls", 1, 1)[:, 0])
    return np.concatenate(logits, 1)


# --- PatchGAN ------------------------------------------------------------------------------------
def conv4(x, weight, stride):
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    side = (x.shape[2] - 4) // stride + 1
    y = np.zeros((x.shape[0], weight.shape[0], side, side))
    for r in range(side):
        for c in range(side):
            window = x[:, :, r * stride : r * stride + 4, c * stride : c * stride + 4]
            y[:, :, r, c] = np.einsum("bcij,ocij->bo", window, weight)
    return y


def patch_gan_logits(image, channels=4, groups=4):
    bias = param("main.0.bias", channels)[:, None, None]
    x = leaky(conv4(image, param("main.0.weight", channels, 3, 4, 4), 2) + bias)
    for place, fan_in, out, stride in ((2, 1, 2, 2), (5, 2, 4, 2), (8, 4, 8, 1)):
        out *= channels
        x = conv4(x, param(f"main.{place}.weight", out, fan_in * channels, 4, 4), stride)
        norm = f"main.{place + 1}."
        x = leaky(group_norm(x, groups, param(norm + "weight", out), param(norm + "bias", out)))
    return conv4(x, param("main.11.weight", 1, 8 * channels, 4, 4), 1) + param("main.11.bias", 1)[0]


image = hash_v("input.image", (2, 3, SIDE, SIDE)).astype(np.float32).astype(np.float64)
maps = vit_features(image)
kept = {f"feature.{i}": m for i, m in enumerate(maps)}
kept |= {"dino_logits": dino_logits(maps), "patch_gan_logits": patch_gan_logits(image)}
save_file({k: np.ascontiguousarray(v) for k, v in kept.items()}, "tests/losses/networks.safetensors")
