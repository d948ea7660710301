"""The language half of the tiny model: a Qwen2-VL decoder with M-RoPE, in two passes.

`watch` runs the prefix (chat header, clock and vision tokens) causally and keeps each
layer's keys and values; `read` runs many questions at once over them, each blind to the
others. Together they equal one causal pass over prefix and question.
"""

from __future__ import annotations

import tokens
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN, DEPTH, HEADS, KV_HEADS, HEAD, FFN = 256, 4, 4, 2, 64, 512
SECTIONS, THETA, EPS = (8, 12, 12), 1e7, 1e-6
WORD_NORM = 8.0  # large against a layer's output, or the layers drown what was embedded
KeysValues = list[tuple[Tensor, Tensor]]


def rope_tables(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cos and sin [B, 1, T, 64] for positions [B, T, 3] (t, h, w)."""
    axis = torch.repeat_interleave(torch.arange(3), torch.tensor(SECTIONS))
    frequency = THETA ** (-torch.arange(HEAD // 2) * 2.0 / HEAD)
    angle = positions.float()[..., axis] * frequency
    angle = torch.cat([angle, angle], -1).unsqueeze(1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate halves of the last axis of [B, H, T, 64]."""
    a, b = x.chunk(2, -1)
    return x * rope[0] + torch.cat([-b, a], -1) * rope[1]


class Norm(nn.Module):
    """RMSNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last axis."""
        return F.rms_norm(x, (HIDDEN,), self.weight, EPS)


class Layer(nn.Module):
    """Grouped-query attention and SwiGLU, each after an RMSNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(), Norm()
        self.q, self.k, self.v = (nn.Linear(HIDDEN, n * HEAD) for n in (HEADS, KV_HEADS, KV_HEADS))
        self.out = nn.Linear(HEADS * HEAD, HIDDEN, bias=False)
        self.gate, self.up = (nn.Linear(HIDDEN, FFN, bias=False) for _ in range(2))
        self.down = nn.Linear(FFN, HIDDEN, bias=False)
        with torch.no_grad():  # queries look for what is like themselves
            self.k.weight.normal_(0, 0.7 / HIDDEN**0.5)
            groups = self.k.weight.view(KV_HEADS, 1, HEAD, HIDDEN)
            self.q.weight.copy_(groups.expand(-1, HEADS // KV_HEADS, -1, -1).reshape(-1, HIDDEN))
            for linear in (self.q, self.k, self.v):
                linear.bias.zero_()
            for linear in (self.out, self.down):
                linear.weight.mul_(0.2)

    def heads(self, x: Tensor, linear: nn.Linear, n: int) -> Tensor:
        """Project to heads [B, n, T, 64]."""
        return linear(x).view(*x.shape[:2], n, HEAD).transpose(1, 2)

    def keys_values(self, y: Tensor, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return rotated keys and values of normalized input, repeated to all heads."""
        k = rotate(self.heads(y, self.k, KV_HEADS), rope)
        return k, self.heads(y, self.v, KV_HEADS)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add attention and feed-forward to the residual stream."""
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def spread(x: Tensor) -> Tensor:
    """Repeat KV heads for their query heads."""
    return x.repeat_interleave(HEADS // KV_HEADS, 1)


class LanguageModel(nn.Module):
    """Token or feature embeddings to logits over the vocabulary (tied)."""

    def __init__(self) -> None:
        super().__init__()
        unit = WORD_NORM / HIDDEN**0.5
        self.words = nn.Parameter(torch.randn(tokens.clock_base(), HIDDEN) * unit)
        self.minutes = nn.Parameter(torch.randn(60, HIDDEN) * 0.7 * unit)
        self.seconds = nn.Parameter(torch.randn(60, HIDDEN) * 0.7 * unit)
        self.layers = nn.ModuleList(Layer() for _ in range(DEPTH))
        self.norm = Norm()
        with torch.no_grad():  # keeps the first logits small: embeddings are tied
            self.norm.weight.fill_(1 / WORD_NORM)

    def table(self) -> Tensor:
        """Return all embeddings [vocabulary, 256]; a clock's is its minute's plus its second's."""
        clocks = (self.minutes[:, None] + self.seconds[None]).reshape(-1, HIDDEN)
        return torch.cat([self.words, clocks])

    def watch(
        self, x: Tensor, positions: Tensor, detach: bool = False
    ) -> tuple[KeysValues, Tensor, Tensor]:
        """Run the prefix [B, T, 256]; return keys and values, layer 0's output, and the drift.

        The drift is how much layers add to a token, against what was embedded, squared.

        With `detach`, gradients reach each layer's K and V weights but no earlier layer,
        which makes long prefixes cheap to train on.
        """
        rope, kept, first = rope_tables(positions), [], x
        start, drift = x.detach(), x.new_zeros(())
        for i, layer in enumerate(self.layers):
            y = layer.norm1(x)
            k, v = layer.keys_values(y, rope)
            kept.append((k, v))
            if i + 1 == DEPTH:
                break
            with torch.set_grad_enabled(torch.is_grad_enabled() and not detach):
                q = rotate(layer.heads(y, layer.q, HEADS), rope)
                a = F.scaled_dot_product_attention(q, spread(k), spread(v), is_causal=True)
                x = layer.finish(x, a)
            drift = drift + (x - start).square().mean() / start.square().mean()
            x = x.detach() if detach else x
            first = x if i == 0 else first
        return kept, first, drift

    def read(
        self,
        x: Tensor,
        positions: Tensor,
        own: Tensor,
        kept: KeysValues,
        look: int = -1,
        dropped: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run question tokens [B, Q, 256] over a prefix; return final hidden states.

        Args:
            x: embeddings of the question tokens of all questions.
            positions: [B, Q, 3].
            own: bool [B, Q, Q], which question tokens each may see.
            kept: the prefix's keys and values.
            look: the layer whose attention over the prefix [B, H, Q, T], and whose input, are
                returned as well.
            dropped: per layer, bool [B, KV heads, T], prefix tokens taken out of the cache.
        """
        rope, seen, before = rope_tables(positions), None, None
        mask = torch.zeros(own.shape).masked_fill(~own, float("-inf")).unsqueeze(1)
        for i, (layer, (past_k, past_v)) in enumerate(zip(self.layers, kept, strict=True)):
            y = layer.norm1(x)
            k, v = layer.keys_values(y, rope)
            q = rotate(layer.heads(y, layer.q, HEADS), rope) / HEAD**0.5
            over = q @ spread(past_k).transpose(-1, -2)
            if dropped is not None:
                over = over.masked_fill(spread(dropped[i]).unsqueeze(2), float("-inf"))
            p = torch.cat([over, q @ spread(k).transpose(-1, -2) + mask], -1).softmax(-1)
            over, p_own = p.split([past_k.shape[2], k.shape[2]], -1)
            if i == look:
                seen, before = over, x
            x = layer.finish(x, over @ spread(past_v) + p_own @ spread(v))
        return self.norm(x), seen, before
