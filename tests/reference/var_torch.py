"""VAR's training step in plain PyTorch: what the steps of this project are checked and timed against.

    training = Training(Shape(depth=4), attention="mask", precision="bf16", compiled=True)
    loss = training.step(labels_B, teacher_BLE, targets_BL)

Parameters have the public names, so that load_state_dict takes what `var_data export` writes. The model is the one of
src/models/var: AdaLN with six modulations, unit q and k with a learned log scale, GELU by tanh, one embedding of classes,
positions and levels, cross-entropy over all tokens. Randomness is torch's own, and so is the device: torch.set_default_device.

Legend   B batch, L tokens, C width, H heads, D head width, E code width, V codes, S sites of drop path.
Source   arXiv 2404.02905.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
NORM_EPS = 1e-6
MERGE_BELOW = 32  # tokens: the first, tiny maps are one attention call with a mask


@dataclasses.dataclass(frozen=True)
class Shape:
    depth: int
    scales: tuple = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    classes: int = 1000
    vocabulary: int = 4096
    code_width: int = 32

    @property
    def width(self):
        return 64 * self.depth

    @property
    def tokens(self):
        return sum(side * side for side in self.scales)

    def drop_path_rates(self):
        return torch.linspace(0, 0.1 * self.depth / 24, self.depth)


def level_of_token(scales):
    return torch.cat([torch.full((side * side,), k) for k, side in enumerate(scales)])


# --- block-causal attention: a token sees all tokens of its own map and of the coarser ones ---------------------------

def additive_mask(scales, dtype):
    level_L = level_of_token(scales)
    seen_LL = level_L[:, None] >= level_L[None, :]
    return torch.zeros(seen_LL.shape, dtype=dtype).masked_fill_(~seen_LL, -math.inf)


def mask_attention(scales, dtype):
    mask_LL = additive_mask(scales, dtype)
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask_LL, scale=1.0)


def products_attention(scales, dtype):
    """The formula written out, for batched products are fast in bf16 where ATen's CPU kernel of attention is not."""
    mask_LL = additive_mask(scales, dtype)
    return lambda q, k, v: ((q.to(dtype) @ k.to(dtype).transpose(-1, -2) + mask_LL).softmax(-1)) @ v


def prefix_attention(scales, dtype):
    """Map by map, its queries on the keys up to its end: no mask but for the maps that are merged."""
    ends = [sum(side * side for side in scales[:k + 1]) for k in range(len(scales))]
    merged = sum(end <= MERGE_BELOW for end in ends)
    mask_QQ = additive_mask(scales[:merged], dtype)
    spans = list(zip([0, *ends[merged - 1:-1]], ends[merged - 1:]))

    def attend(q, k, v):
        parts = [F.scaled_dot_product_attention(q[:, :, begin:end], k[:, :, :end], v[:, :, :end],
                                                attn_mask=None if begin else mask_QQ, scale=1.0)
                 for begin, end in spans]
        return torch.cat(parts, 2)
    return attend


def flex_attention(scales, dtype):
    """A kernel that torch.compile writes for this mask; without it, a slow formula."""
    from torch.nn.attention import flex_attention as flex
    level_L = level_of_token(scales)
    mask = flex.create_block_mask(lambda b, h, i, j: level_L[i] >= level_L[j], None, None, len(level_L), len(level_L),
                                  device=level_L.device)
    return lambda q, k, v: flex.flex_attention(q.to(dtype), k.to(dtype), v.to(dtype), block_mask=mask, scale=1.0)


ATTENTIONS = {"mask": mask_attention, "products": products_attention, "prefix": prefix_attention, "flex": flex_attention}


# --- the model ----------------------------------------------------------------------------------------------------------

def modulated_norm(x_BLC, scale_B1C, shift_B1C):
    return F.layer_norm(x_BLC, x_BLC.shape[-1:], eps=NORM_EPS) * (1 + scale_B1C) + shift_B1C


def modulation(width, parts):
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


class Attention(nn.Module):
    def __init__(self, shape, attend):
        super().__init__()
        self.heads, self.attend = shape.depth, attend
        self.scale_mul_1H11 = nn.Parameter(torch.full((1, shape.depth, 1, 1), math.log(4)))
        self.q_bias = nn.Parameter(torch.zeros(shape.width))
        self.v_bias = nn.Parameter(torch.zeros(shape.width))
        self.mat_qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.proj = nn.Linear(shape.width, shape.width)

    def forward(self, x_BLC):
        B, L, C = x_BLC.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])  # one on keys would change nothing
        qkv = F.linear(x_BLC, self.mat_qkv.weight, bias).view(B, L, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q = F.normalize(q, dim=-1) * self.scale_mul_1H11.clamp_max(math.log(100)).exp()
        k = F.normalize(k, dim=-1)
        return self.proj(self.attend(q, k, v).transpose(1, 2).reshape(B, L, C))


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x_BLC):
        return self.fc2(F.gelu(self.fc1(x_BLC), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, shape, attend):
        super().__init__()
        self.attn = Attention(shape, attend)
        self.ffn = FeedForward(shape.width)
        self.ada_lin = modulation(shape.width, 6)

    def forward(self, x_BLC, class_BC, kept_2B):
        """kept_2B: what drop path makes of the two residuals, 0 or 1 / keep rate."""
        gamma1, gamma2, scale1, scale2, shift1, shift2 = self.ada_lin(class_BC).unsqueeze(1).chunk(6, -1)
        if kept_2B is not None:
            gamma1, gamma2 = gamma1 * kept_2B[0, :, None, None], gamma2 * kept_2B[1, :, None, None]
        x_BLC = x_BLC + self.attn(modulated_norm(x_BLC, scale1, shift1)) * gamma1
        return x_BLC + self.ffn(modulated_norm(x_BLC, scale2, shift2)) * gamma2


class HeadNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ada_lin = modulation(width, 2)

    def forward(self, x_BLC, class_BC):
        return modulated_norm(x_BLC, *self.ada_lin(class_BC).unsqueeze(1).chunk(2, -1))


class Var(nn.Module):
    def __init__(self, shape, attend):
        super().__init__()
        C = shape.width
        self.shape = shape
        self.pos_start = nn.Parameter(torch.empty(1, shape.scales[0] ** 2, C))
        self.pos_1LC = nn.Parameter(torch.empty(1, shape.tokens, C))
        self.word_embed = nn.Linear(shape.code_width, C)
        self.class_emb = nn.Embedding(shape.classes + 1, C)
        self.lvl_embed = nn.Embedding(len(shape.scales), C)
        self.blocks = nn.ModuleList(Block(shape, attend) for _ in range(shape.depth))
        self.head_nm = HeadNorm(C)
        self.head = nn.Linear(C, shape.vocabulary)
        self.register_buffer("level_L", level_of_token(shape.scales), persistent=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self):
        """The rules of src/models/var/init.cpp, with torch's own random numbers."""
        C, to_residual = self.shape.width, 1 / math.sqrt(2 * self.shape.depth)
        for name, parameter in self.named_parameters():
            if name.endswith("scale_mul_1H11"):
                continue
            if name.endswith("bias"):
                parameter.zero_()
                continue
            parameter.normal_(std=math.sqrt(1 / (3 * C)))
            if name.endswith(("attn.proj.weight", "ffn.fc2.weight")):
                parameter.mul_(to_residual)
            elif name == "head.weight":
                parameter.mul_(0.02)
            elif "ada_lin" in name:
                parameter.mul_(0.5)
                if name.startswith("blocks."):
                    parameter[:2 * C].mul_(2e-5)  # gates: 1e-5 in all

    def forward(self, labels_B, teacher_BLE, kept_SB=None):
        """Logits [B, L, V] of all maps; teacher_BLE is the input of all maps but the first."""
        class_BC = self.class_emb(labels_B)
        x_BLC = torch.cat([class_BC[:, None] + self.pos_start, self.word_embed(teacher_BLE)], 1)
        x_BLC = x_BLC + (self.lvl_embed(self.level_L) + self.pos_1LC)
        for i, block in enumerate(self.blocks):
            x_BLC = block(x_BLC, class_BC, None if kept_SB is None else kept_SB[2 * i:2 * i + 2])
        return self.head(self.head_nm(x_BLC, class_BC))


# --- training -----------------------------------------------------------------------------------------------------------

def is_decayed(name, parameter):
    plain = ("pos_start", "pos_1LC", "lvl_embed", "scale_mul")
    return parameter.ndim > 1 and not name.endswith("bias") and not any(word in name for word in plain)


class Training:
    """A model and its optimiser. One step: label drop and drop path, forward, loss, backward, clip, AdamW."""

    def __init__(self, shape, attention="mask", precision="fp32", compiled=False, lr=1e-4, clip=2.0, drop=True):
        self.shape, self.clip, self.drop, self.precision = shape, clip, drop, precision
        self.model = Var(shape, ATTENTIONS[attention](shape.scales, PRECISIONS[precision]))
        self.parameters = list(self.model.parameters())
        groups = {True: [], False: []}
        for name, parameter in self.model.named_parameters():
            groups[is_decayed(name, parameter)].append(parameter)
        self.optimizer = torch.optim.AdamW([{"params": groups[True], "weight_decay": 0.05},
                                            {"params": groups[False], "weight_decay": 0.0}],
                                           lr=lr, betas=(0.9, 0.95), eps=1e-8, fused=True)
        self.loss = torch.compile(self.plain_loss, dynamic=False) if compiled else self.plain_loss

    def plain_loss(self, labels_B, teacher_BLE, targets_BL, kept_SB):
        logits_BLV = self.model(labels_B, teacher_BLE, kept_SB)
        return F.cross_entropy(logits_BLV.flatten(0, 1), targets_BL.flatten())

    def drawn(self, labels_B):
        """Labels with a tenth replaced by the null class, and the factors of drop path."""
        if not self.drop:
            return labels_B, None
        null_B = torch.rand(labels_B.shape) < 0.1
        keep_S1 = 1 - self.shape.drop_path_rates().repeat_interleave(2)[:, None]
        kept_SB = (torch.rand(2 * self.shape.depth, len(labels_B)) < keep_S1) / keep_S1
        return torch.where(null_B, self.shape.classes, labels_B), kept_SB

    def step(self, labels_B, teacher_BLE, targets_BL):
        """One update. Returns loss and gradient norm before it, as tensors."""
        labels_B, kept_SB = self.drawn(labels_B)
        with torch.autocast(labels_B.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.loss(labels_B, teacher_BLE, targets_BL, kept_SB)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach(), norm
