"""InternVideo2 and -Next: the same numbers as the equations, and the authors' names and sizes."""

import pytest
import torch
from torch.nn import functional as F

from lift.catalogue import CATALOGUE
from lift.internvideo import InternEncoder, from_official, official_name
from lift.io import InputError
from lift.video_backbones import empty_network

DIM, DEPTH, HEADS, FRAMES, SIZE = 32, 3, 4, 3, 28


def shapes(dim: int, depth: int, tokens: int, newer: bool) -> dict[str, tuple[int, ...]]:
    """The encoder in the authors' files."""
    classes = 4 if newer else 1
    found = {
        "cls_token": (1, classes, dim), "pos_embed": (1, classes + tokens, dim),
        "patch_embed.proj.weight": (dim, 3, 1, 14, 14), "patch_embed.proj.bias": (dim,),
    }  # fmt: skip
    if newer:
        found |= {"patch_embed.norm.weight": (dim,), "patch_embed.norm_before.weight": (588,)}
    scale = "lr_scale" if newer else "gamma"
    for i in range(depth):
        block = {
            "norm1.weight": (dim,), "norm2.weight": (dim,), f"ls1.{scale}": (dim,),
            f"ls2.{scale}": (dim,), "attn.qkv.weight": (3 * dim, dim),
            "attn.q_norm.weight": (dim,), "attn.k_norm.weight": (dim,),
            "attn.proj.weight": (dim, dim), "attn.proj.bias": (dim,),
            "mlp.fc1.weight": (4 * dim, dim), "mlp.fc1.bias": (4 * dim,),
            "mlp.fc2.weight": (dim, 4 * dim), "mlp.fc2.bias": (dim,),
        }  # fmt: skip
        found |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return found


def projector(dim: int) -> dict[str, tuple[int, ...]]:
    """The attention pooling in the authors' files, which an encoder does not use."""
    norms = {f"norm1_{part}.{kind}": (dim,) for part in "qkv" for kind in ("weight", "bias")}
    biases = {f"cross_attn.{part}_bias": (dim,) for part in "qkv"}
    weights = {f"cross_attn.{part}.weight": (dim, dim) for part in "qkv"}
    out = {"cross_attn.proj.weight": (768, dim), "cross_attn.proj.bias": (768,)}
    return {f"clip_projector.{n}": shape for n, shape in (norms | biases | weights | out).items()}


def official_state(newer: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = FRAMES * (SIZE // 14) ** 2
    prefix = "model." if newer else ""
    return {
        prefix + name: 0.3 * torch.randn(shape, generator=generator)
        for name, shape in (shapes(DIM, DEPTH, tokens, newer) | projector(DIM)).items()
    }


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def by_the_equations(state: dict, frames: torch.Tensor, newer: bool) -> torch.Tensor:
    """The encoder once more, from the authors' names: a convolution, one head at a time."""
    get = {name.removeprefix("model."): value for name, value in state.items()}
    x = frames.transpose(1, 2)  # (B, 3, T, S, S)
    if newer:  # every patch of pixels is normalised, colours last
        cut = x.unfold(3, 14, 14).unfold(4, 14, 14).permute(0, 2, 3, 4, 5, 6, 1)
        cut = rms(cut.flatten(4), get["patch_embed.norm_before.weight"]).view(cut.shape)
        x = cut.permute(0, 6, 1, 2, 4, 3, 5).reshape(x.shape)
    window, bias = get["patch_embed.proj.weight"], get["patch_embed.proj.bias"]
    x = F.conv3d(x, window, bias, stride=(1, 14, 14)).flatten(2).transpose(1, 2)
    x = rms(x, get["patch_embed.norm.weight"]) if newer else x
    first = get["cls_token"].expand(len(x), -1, -1)
    x = torch.cat([first, x], 1) + get["pos_embed"]
    for i in range(DEPTH):
        b = {n.removeprefix(f"blocks.{i}."): v for n, v in get.items() if f"blocks.{i}." in n}
        q, k, v = (rms(x, b["norm1.weight"]) @ b["attn.qkv.weight"].T).split(DIM, -1)
        q, k = rms(q, b["attn.q_norm.weight"]), rms(k, b["attn.k_norm.weight"])
        heads = []
        for part in range(HEADS):
            own = slice(part * DIM // HEADS, (part + 1) * DIM // HEADS)
            scores = q[..., own] @ k[..., own].transpose(1, 2) / (DIM / HEADS) ** 0.5
            heads.append(scores.softmax(-1) @ v[..., own])
        mixed = F.linear(torch.cat(heads, -1), b["attn.proj.weight"], b["attn.proj.bias"])
        scale = "lr_scale" if newer else "gamma"
        x = x + b[f"ls1.{scale}"] * mixed
        hidden = F.linear(rms(x, b["norm2.weight"]), b["mlp.fc1.weight"], b["mlp.fc1.bias"])
        hidden = F.gelu(hidden, approximate="tanh")
        x = x + b[f"ls2.{scale}"] * F.linear(hidden, b["mlp.fc2.weight"], b["mlp.fc2.bias"])
    return x[:, first.shape[1] :]


def new_encoder(newer: bool) -> InternEncoder:
    more = {"classes": 4, "normed": True} if newer else {}
    return InternEncoder(DIM, DEPTH, HEADS, FRAMES, size=SIZE, **more).eval()


@pytest.mark.parametrize("newer", [False, True], ids=["2", "next"])
def test_the_encoder_does_what_the_equations_say(newer):
    encoder, state = new_encoder(newer), official_state(newer)
    from_official({"module": state}, encoder, "file")
    frames = torch.randn(2, FRAMES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = encoder(frames)
    assert found.shape == (2, FRAMES * 4, DIM)
    expected = by_the_equations(state, frames, newer)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("newer", [False, True], ids=["2", "next"])
def test_every_official_name_has_a_place_or_is_left_out(newer):
    named = [official_name(name) for name in official_state(newer)]
    assert sorted(name for name in named if name) == sorted(new_encoder(newer).state_dict())
    assert named.count(None) == 14, "the projector"


def test_the_published_files_have_as_many_tensors_and_bytes_as_the_rows_need():
    with torch.device("meta"):
        distilled = empty_network(CATALOGUE["internvideo2_base"])
        newer = empty_network(CATALOGUE["internvideo_next_base"])
    assert len(distilled.state_dict()) == 217 - 14 - 1 - 7 * 6, "projector, positions, decoders"
    pooled = sum(torch.Size(shape).numel() for shape in projector(768).values())
    halves = 2 * (CATALOGUE["internvideo_next_base"].parameters + pooled)
    assert halves == pytest.approx(182e6, rel=3e-3), "the published file, in float16"
    assert len(newer.state_dict()) == len(shapes(768, 12, 16 * 256, True))


@pytest.mark.parametrize("damage", ["missing", "unexpected", "misshapen"])
def test_weights_that_do_not_fit_are_refused(damage):
    state, encoder = official_state(False), new_encoder(False)
    if damage == "missing":
        del state["blocks.1.attn.q_norm.weight"]
    elif damage == "unexpected":
        state["blocks.1.attn.qkv.bias"] = torch.zeros(3 * DIM)
    else:
        state["pos_embed"] = state["pos_embed"][:, :-1]
    with pytest.raises(InputError, match=f"vit.bin: not the weights.*1 {damage}") as caught:
        from_official(state, encoder, "vit.bin")
    assert "\n" not in str(caught.value)
