"""An independent LiFT in plain `torch.nn`, written from the description of the method alone, in the released checkpoint's layout.

It shares no code with `lift`; the parity tests load the same weights into both.
"""

import math

import numpy as np
import torch
from torch import nn


class Positions(nn.Module):
    def __init__(self, dim: int, length: int):
        super().__init__()
        # all in float32, as the release computes it
        position = np.arange(length, dtype=np.float32)[:, None]
        rate = np.exp(np.arange(0, dim, 2, dtype=np.float32) * np.float32(-math.log(10000.0) / dim))
        table = np.zeros((1, length, dim), np.float32)
        table[0, :, 0::2], table[0, :, 1::2] = np.sin(position * rate), np.cos(position * rate)
        self.register_buffer("pe", torch.from_numpy(table))


class Encoder(nn.Module):
    def __init__(self, feature_dim: int, dim: int, depth: int, length: int):
        super().__init__()
        self.input_proj = nn.Linear(feature_dim, dim)
        self.pos_encoder = Positions(dim, length)
        self.cls_static = nn.Parameter(torch.randn(1, 1, dim))
        self.cls_dynamic = nn.Parameter(torch.randn(1, 1, dim))
        layer = nn.TransformerEncoderLayer(
            dim, 8, 4 * dim, dropout=0.1, activation="relu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.static_proj, self.dynamic_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.static_norm, self.dynamic_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames = self.input_proj(x) + self.pos_encoder.pe[:, : x.shape[1]]
        batch = x.shape[0]
        tokens = torch.cat(
            [self.cls_static.repeat(batch, 1, 1), self.cls_dynamic.repeat(batch, 1, 1), frames],
            dim=1,
        )
        tokens = self.transformer(tokens)
        return self.static_norm(self.static_proj(tokens[:, 0])), self.dynamic_norm(
            self.dynamic_proj(tokens[:, 1])
        )


class Decoder(nn.Module):
    def __init__(self, dim: int, feature_dim: int):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(dim, 2 * dim), nn.LayerNorm(2 * dim), nn.GELU(),
            nn.Linear(2 * dim, 2 * dim), nn.LayerNorm(2 * dim), nn.GELU(),
            nn.Linear(2 * dim, feature_dim),
        )  # fmt: skip


class ReferenceLiFT(nn.Module):
    def __init__(self, feature_dim: int = 384, dim: int = 384, depth: int = 4, length: int = 5000):
        super().__init__()
        self.encoder = Encoder(feature_dim, dim, depth, length)
        self.decoder = Decoder(dim, feature_dim)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        static, dynamic = self.encoder(x)
        frames = [static + t / (x.shape[1] - 1) * dynamic for t in range(x.shape[1])]
        return static, dynamic, torch.stack([self.decoder.model(z) for z in frames], dim=1)
