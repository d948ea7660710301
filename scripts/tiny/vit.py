"""The vision half of the tiny model: a Qwen2-VL vision transformer for one frame pair.

Weights have the shapes and the order that llama.cpp's mtmd expects: patches of 14 pixels,
two frames a pair, tokens in 2x2 merge blocks, rotary positions, quick-GELU, LayerNorm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE, PATCH, MERGE = 112, 14, 2
N_TOKENS = (SIDE // PATCH // MERGE) ** 2
EMBED, DEPTH, HEADS, MLP, OUT = 128, 3, 4, 256, 256
EPS = 1e-6


def patchify(frames: Tensor) -> Tensor:
    """Cut uint8 frames [B, 2, 112, 112, 3] into normalized patches [B, 64, 2*3*14*14]."""
    n, g = frames.shape[0], SIDE // PATCH // MERGE
    x = frames.float().div_(127.5).sub_(1)
    x = x.view(n, 2, g, MERGE, PATCH, g, MERGE, PATCH, 3)
    return x.permute(0, 2, 5, 3, 6, 1, 8, 4, 7).reshape(n, g * g * MERGE**2, -1)


def rotary() -> tuple[Tensor, Tensor]:
    """Return cos and sin [64, head_dim] of the tokens' rows and columns, in merge-block order."""
    g, quarter = SIDE // PATCH // MERGE, EMBED // HEADS // 4
    gy, gx, my, mx = (
        t.reshape(-1)
        for t in torch.meshgrid(
            torch.arange(g),
            torch.arange(g),
            torch.arange(MERGE),
            torch.arange(MERGE),
            indexing="ij",
        )
    )
    frequency = 10000.0 ** (-torch.arange(quarter).float() / quarter)
    rows, columns = ((gy * MERGE + my)[:, None] * frequency, (gx * MERGE + mx)[:, None] * frequency)
    angle = torch.cat([rows, columns], 1).repeat(1, 2)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate halves of the last axis."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class Block(nn.Module):
    """Attention and a quick-GELU feed-forward layer, each after a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(EMBED, EPS), nn.LayerNorm(EMBED, EPS)
        self.q, self.k, self.v, self.out = (nn.Linear(EMBED, EMBED) for _ in range(4))
        self.up, self.down = nn.Linear(EMBED, MLP), nn.Linear(MLP, EMBED)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map tokens [B, 64, 128] to tokens [B, 64, 128]."""
        n, t, _ = x.shape
        y = self.ln1(x)
        q, k, v = (f(y).view(n, t, HEADS, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, EMBED))
        y = self.up(self.ln2(x))
        return x + self.down(y * torch.sigmoid(1.702 * y))


class VisionTransformer(nn.Module):
    """Frame pairs to 16 projected features each."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Linear(2 * 3 * PATCH**2, EMBED, bias=False)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.post = nn.LayerNorm(EMBED, EPS)
        self.mm0 = nn.Linear(EMBED * MERGE**2, EMBED * MERGE**2)
        self.mm2 = nn.Linear(EMBED * MERGE**2, OUT)
        cos, sin = rotary()
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Map uint8 frames [B, 2, 112, 112, 3] to features [B, 16, 256]."""
        x = self.patch(patchify(frames))
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        x = self.post(x).reshape(x.shape[0], N_TOKENS, -1)
        return self.mm2(F.gelu(self.mm0(x), approximate="tanh"))
