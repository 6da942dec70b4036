"""V-JEPA 2.1: the same numbers as the equations, and the authors' names of the tensors."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lift.io import InputError
from lift.vjepa import JEPAEncoder, from_official, grid_positions, official_name, rotate

DIM, HEADS, DEPTH = 32, 2, 12


def official_state(dim: int = DIM, depth: int = DEPTH) -> dict[str, torch.Tensor]:
    """Random weights under the names and in the shapes of the authors' files."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "patch_embed.proj.weight": (dim, 3, 2, 16, 16),
        "patch_embed.proj.bias": (dim,),
        "patch_embed_img.proj.weight": (dim, 3, 1, 16, 16),
        "patch_embed_img.proj.bias": (dim,),
        "img_mod_embed": (1, 1, dim),
        "video_mod_embed": (1, 1, dim),
    }
    for i in range(depth):
        block = {
            "norm1": (dim,), "norm2": (dim,), "attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim),
            "mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim),
        }  # fmt: skip
        for name, shape in block.items():
            shapes[f"blocks.{i}.{name}.weight"] = shape
            shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
    for i in range(4):
        shapes |= {f"norms_block.{i}.weight": (dim,), f"norms_block.{i}.bias": (dim,)}
    return {
        f"module.backbone.{name}": 0.2 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def turned(x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Pairs of coordinates as complex numbers, times a unit number."""
    numbers = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    speeds = torch.tensor([10000 ** (-2 * i / x.shape[-1]) for i in range(x.shape[-1] // 2)])
    angles = position[:, None] * speeds
    product = numbers * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(product).flatten(-2)


def by_the_equations(state: dict, frames: torch.Tensor) -> torch.Tensor:
    """The encoder once more, from the authors' names, one head at a time."""
    get = {name.removeprefix("module.backbone."): value for name, value in state.items()}
    pair = {name: (get[f"{name}.weight"], get[f"{name}.bias"]) for name in
            {key.rsplit(".", 1)[0] for key in get if key.endswith((".weight", ".bias"))}}  # fmt: skip
    batch, length, _, size, _ = frames.shape
    side, steps = size // 16, length // 2
    cut = frames.reshape(batch, steps, 2, 3, side, 16, side, 16).permute(0, 1, 4, 6, 3, 2, 5, 7)
    weight, bias = pair["patch_embed.proj"]
    x = cut.reshape(batch, steps * side**2, -1) @ weight.flatten(1).T + bias
    x = x + get["video_mod_embed"]
    n = np.arange(steps * side**2)
    scale = 15 / (side - 1)
    places = (n // side**2, n % side**2 // side * scale, n % side * scale)
    for i in range(DEPTH):
        y = F.layer_norm(x, (DIM,), *pair[f"blocks.{i}.norm1"], 1e-6)
        qkv = F.linear(y, *pair[f"blocks.{i}.attn.qkv"])
        heads, width = [], DIM // HEADS
        for head in range(HEADS):
            q, k, v = (
                qkv[..., part * DIM + head * width : part * DIM + (head + 1) * width]
                for part in range(3)
            )
            third = width // 3 // 2 * 2
            for axis, place in enumerate(places):
                chosen = slice(axis * third, (axis + 1) * third)
                at = torch.tensor(place, dtype=torch.float32)
                q, k = q.clone(), k.clone()
                q[..., chosen], k[..., chosen] = (
                    turned(q[..., chosen], at),
                    turned(k[..., chosen], at),
                )
            heads.append((q @ k.transpose(1, 2) / width**0.5).softmax(-1) @ v)
        x = x + F.linear(torch.cat(heads, -1), *pair[f"blocks.{i}.attn.proj"])
        y = F.layer_norm(x, (DIM,), *pair[f"blocks.{i}.norm2"], 1e-6)
        y = F.gelu(F.linear(y, *pair[f"blocks.{i}.mlp.fc1"]))
        x = x + F.linear(y, *pair[f"blocks.{i}.mlp.fc2"])
    return F.layer_norm(x, (DIM,), *pair["norms_block.3"], 1e-6)


@pytest.fixture
def encoder() -> JEPAEncoder:
    return JEPAEncoder(DIM, DEPTH, HEADS).eval()


@pytest.mark.parametrize("size", [32, 64])
def test_the_encoder_does_what_the_equations_say(encoder, size):
    state = official_state()
    from_official({"ema_encoder": state}, encoder, "file")
    frames = torch.rand(2, 4, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = encoder(frames)
    assert found.shape == (2, 2 * (size // 16) ** 2, DIM)
    torch.testing.assert_close(found, by_the_equations(state, frames), rtol=1e-4, atol=1e-4)


def test_every_official_name_has_a_place_or_is_left_out(encoder):
    named = [official_name(name) for name in official_state()]
    assert sorted(name for name in named if name) == sorted(encoder.state_dict())
    assert named.count(None) == 9, "single images: 3; the norms after earlier blocks: 6"


def test_the_target_encoder_is_taken_and_prefixes_do_not_matter(encoder):
    state = official_state()
    plain = {name.removeprefix("module.backbone."): value for name, value in state.items()}
    from_official({"encoder": {}, "target_encoder": plain, "epoch": 3}, encoder, "file")
    assert torch.equal(encoder.norm.weight, plain["norms_block.3.weight"])
    assert torch.equal(encoder.kind, plain["video_mod_embed"])


@pytest.mark.parametrize("damage", ["missing", "unexpected", "misshapen"])
def test_weights_that_do_not_fit_are_refused(encoder, damage):
    state = official_state()
    name = "module.backbone.blocks.3.attn.qkv.bias"
    if damage == "missing":
        del state[name]
    elif damage == "unexpected":
        state["module.backbone.pos_embed"] = torch.zeros(1)
    else:
        state[name] = torch.zeros(7)
    before = encoder.embed.weight.clone()
    with pytest.raises(InputError, match=f"vit.pt: not the weights.*1 {damage}") as caught:
        from_official({"ema_encoder": state}, encoder, "vit.pt")
    assert "\n" not in str(caught.value) and torch.equal(encoder.embed.weight, before)


def test_rotation_keeps_lengths_and_knows_only_differences():
    x, y = torch.randn(2, 1, 10, generator=torch.Generator().manual_seed(2))
    for shift in (0.0, 1.0, 7.5):
        at = [torch.tensor([place + shift]) for place in (2.0, 5.0)]
        product = (rotate(x, at[0]) * rotate(y, at[1])).sum()
        unmoved = (rotate(x, torch.tensor([2.0])) * rotate(y, torch.tensor([5.0]))).sum()
        torch.testing.assert_close(product, unmoved, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(rotate(x, at[0]).norm(), x.norm())


def test_positions_are_stretched_to_the_grid_of_training():
    positions = grid_positions(2, 24)
    assert positions.shape == (3, 2 * 24 * 24)
    assert positions.amax(1).tolist() == [1.0, 15.0, 15.0]
    assert positions[:, 24 * 24 + 1].tolist()[:2] == [1.0, 0.0]
