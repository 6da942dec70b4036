"""Video encoders: tiny random models of the same classes, saved to a folder and read back.

No model hub can be reached here: what is tried is the code that loads, prepares and pools.
"""

import dataclasses
import json
import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from lift import internvideo, video_backbones
from lift.backbones import WeightsError, create_backbone
from lift.catalogue import CATALOGUE
from lift.extraction import extract
from lift.fingerprint import reference_embedding
from lift.internvideo import InternEncoder
from lift.io import InputError, MissingExtraError
from lift.store import FeatureStore, StoreMismatchError
from lift.video import write_video
from lift.vjepa import JEPAEncoder

WIDTH = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
TINY = WIDTH | {"num_hidden_layers": 2, "image_size": 32}
DECODER = {"decoder_num_attention_heads": 2, "decoder_hidden_size": 16}
DECODER |= {"decoder_num_hidden_layers": 1, "decoder_intermediate_size": 32}
JEPA = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "crop_size": 32}
JEPA |= {"frames_per_clip": 8, "pred_hidden_size": 12, "pred_num_attention_heads": 2}
JEPA |= {"pred_num_hidden_layers": 1, "num_pooler_layers": 1}
PRISM = WIDTH | {"num_spatial_layers": 2, "num_temporal_layers": 1, "image_size": 36}
CONFIGS = {
    "vjepa2": ("VJEPA2", JEPA),
    "videomae": ("VideoMAE", TINY | DECODER | {"num_frames": 8}),
    "videoprism_vision_model": ("VideoPrismVision", PRISM | {"num_frames": 4}),
    "timesformer": ("Timesformer", TINY | {"num_frames": 4}),
    "vivit": ("Vivit", TINY | {"num_frames": 8, "tubelet_size": [2, 16, 16]}),
}
TASKS = {
    "vjepa2": "VJEPA2ForVideoClassification",
    "videomae": "VideoMAEForVideoClassification",
    "videoprism_vision_model": "VideoPrismForVideoClassification",
    "timesformer": "TimesformerForVideoClassification",
    "vivit": "VivitForVideoClassification",
}
FAMILIES = list(CONFIGS)
CLASSES = ["timesformer", "vivit"]
CPU = {"device": "cpu", "precision": "float32"}


def new_model(family: str, kind: str | None = None) -> torch.nn.Module:
    """A tiny model with random weights, biases included."""
    config, fields = CONFIGS[family]
    torch.manual_seed(0)
    kind = getattr(transformers, kind or video_backbones._FAMILIES[family].model)
    model = kind(getattr(transformers, f"{config}Config")(**fields)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def new_processor(family: str) -> transformers.BaseVideoProcessor:
    square = {"height": 32, "width": 32}
    if family == "videoprism_vision_model":
        size = {"height": 36, "width": 36}
        return transformers.LlavaOnevisionVideoProcessor(size=size, do_normalize=False)
    kind = getattr(transformers, video_backbones._FAMILIES[family].processor)
    return kind(size={"shortest_edge": 37}, crop_size=square)


def save(model: torch.nn.Module, family: str, folder: Path) -> Path:
    with video_backbones._quiet():
        model.save_pretrained(folder)
        new_processor(family).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: save(new_model(family), family, root / family) for family in FAMILIES}


@pytest.fixture
def copy(folders, tmp_path):
    """A copy of a folder that a test may damage."""
    return lambda family: Path(shutil.copytree(folders[family], tmp_path / family))


def edit_weights(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def clips(frames: int, number: int = 2, height: int = 45, width: int = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (number, frames, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def direct(model: torch.nn.Module, processor, frames: torch.Tensor, family: str) -> torch.Tensor:
    """Tokens of one clip `(T, H, W, 3)` as the library itself makes them."""
    known = video_backbones._FAMILIES[family]
    ready = processor(frames.permute(0, 3, 1, 2), return_tensors="pt")
    pixels = next(iter(ready.values()))
    extra = {"skip_predictor": True} if family == "vjepa2" else {}
    with torch.no_grad():
        return model(**{known.argument: pixels}, **extra).last_hidden_state


# What goes in


@pytest.mark.parametrize("shape", [(45, 60), (61, 38), (32, 32), (33, 120), (240, 321)])
@pytest.mark.parametrize("family", FAMILIES)
def test_preprocessing_is_that_of_the_library(folders, family, shape):
    backbone = create_backbone(str(folders[family]), **CPU)
    frames = clips(backbone.frames, 1, *shape)
    found = backbone._normalise(backbone.preprocess(frames))
    ready = new_processor(family)(frames[0].permute(0, 3, 1, 2), return_tensors="pt")
    torch.testing.assert_close(found, next(iter(ready.values())), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["vjepa2_large_256", "videomae_base", "vivit_base_k400"])
def test_random_weights_get_the_defaults_of_their_processor(name):
    entry = CATALOGUE[name]
    family = video_backbones._FAMILIES[entry.family]
    chosen = video_backbones._processor(None, family, entry.input_size)
    ours = video_backbones._preprocessing(chosen, entry.input_size, name)
    frames = clips(1, 1, 300, 400)
    theirs = getattr(transformers, family.processor)()(
        frames[0].permute(0, 3, 1, 2), return_tensors="pt"
    )
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (ours.mean, ours.std))
    found = (ours(frames) / 255 - mean) / std
    torch.testing.assert_close(found, next(iter(theirs.values())), rtol=1e-5, atol=1e-5)


def test_uint8_and_float_clips_give_the_same(folders):
    backbone = create_backbone(str(folders["vjepa2"]), **CPU)
    frames = backbone.preprocess(clips(8))
    torch.testing.assert_close(backbone(frames / 255), backbone(frames), rtol=1e-4, atol=1e-4)


# What comes out


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_the_library(folders, family):
    backbone = create_backbone(str(folders[family]), **CPU, pooling="tokens")
    frames = clips(backbone.frames)
    found = backbone(backbone.preprocess(frames))
    model, form = new_model(family), backbone.format
    for one, clip in zip(found, frames, strict=True):
        tokens = direct(model, new_processor(family), clip, family)[0]
        tokens = tokens[1:] if form.classes else tokens
        if form.patch_major:
            tokens = tokens.unflatten(0, (form.places, -1)).transpose(0, 1).flatten(0, 1)
        torch.testing.assert_close(one, tokens, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_poolings_are_means_of_tokens(folders, family):
    made = {
        pooling: create_backbone(str(folders[family]), **CPU, pooling=pooling)
        for pooling in ("time", "mean", "tokens")
    }
    form, frames = made["time"].format, made["time"].preprocess(clips(made["time"].frames))
    found = {pooling: backbone(frames) for pooling, backbone in made.items()}
    steps = form.frames // form.tubelet
    assert found["time"].shape == (2, steps, 32) and found["mean"].shape == (2, 1, 32)
    assert found["tokens"].shape == (2, steps * form.places, 32)
    for pooling, backbone in made.items():
        assert found[pooling].shape[1] == backbone.steps(form.frames)
        assert found[pooling].dtype == torch.float32 and not found[pooling].requires_grad
    by_time = found["tokens"].unflatten(1, (steps, -1)).mean(2)
    torch.testing.assert_close(found["time"], by_time, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["mean"][:, 0], by_time.mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", CLASSES)
def test_the_class_token_is_the_first(folders, family):
    backbone = create_backbone(str(folders[family]), **CPU, pooling="class")
    frames = clips(backbone.frames, 1)
    tokens = direct(new_model(family), new_processor(family), frames[0], family)
    torch.testing.assert_close(
        backbone(backbone.preprocess(frames)), tokens[:, :1], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frame_moves_its_own_time_step(folders, family):
    """Without attention a token depends on its tubelet alone, so only one step may move."""
    backbone = create_backbone(str(folders[family]), **CPU)
    outputs = ("attention.proj.", "attention.output", "attention.o_proj", "temporal_dense")
    silenced = 0
    for name, parameter in backbone.network.named_parameters():
        if any(part in name for part in outputs):
            torch.nn.init.zeros_(parameter)
            silenced += 1
    assert silenced >= 4
    frames = backbone.preprocess(clips(backbone.frames, 1))
    changed = frames.clone()
    changed[:, -2] = 255 - changed[:, -2]
    moved = (backbone(changed) - backbone(frames)).abs().amax(-1)[0] > 1e-3
    step = (backbone.frames - 2) // backbone.format.tubelet
    assert moved.nonzero().flatten().tolist() == [step]


@pytest.mark.parametrize("family", FAMILIES)
def test_features_do_not_depend_on_the_batch_and_repeat_exactly(folders, family):
    backbone = create_backbone(str(folders[family]), **CPU)
    frames = backbone.preprocess(clips(backbone.frames, 3))
    together = backbone(frames)
    assert torch.equal(backbone(frames), together)
    alone = torch.cat([backbone(frames[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
    wide = dataclasses.replace(backbone.plan, chunk=3)
    backbone.plan = wide
    torch.testing.assert_close(backbone(frames), together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_keeps_the_direction(folders, family):
    half = create_backbone(str(folders[family]), device="cpu", precision="bfloat16")
    plain = create_backbone(str(folders[family]), **CPU)
    frames = plain.preprocess(clips(plain.frames))
    assert half(frames).dtype == torch.float32 and half.description == plain.description
    assert F.cosine_similarity(half(frames), plain(frames), dim=-1).min() > 0.99


# Weights


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_of_another_task_holds_the_same_encoder(tmp_path, family):
    model = new_model(family, TASKS[family])
    save(model, family, tmp_path / "task")
    backbone = create_backbone(str(tmp_path / "task"), **CPU, pooling="tokens")
    frames = clips(backbone.frames, 1)
    encoder = getattr(model, model.base_model_prefix, model)
    if encoder is model:  # VideoPrism names its encoder otherwise
        encoder = model.encoder
    tokens = direct(encoder, new_processor(family), frames[0], family)
    found = backbone(backbone.preprocess(frames))
    torch.testing.assert_close(
        found.sum(1), tokens[:, backbone.format.classes :].sum(1), rtol=1e-3, atol=1e-3
    )


def test_a_pretraining_checkpoint_of_videomae_is_accepted(tmp_path):
    save(new_model("videomae", "VideoMAEForPreTraining"), "videomae", tmp_path / "pretrained")
    backbone = create_backbone(str(tmp_path / "pretrained"), **CPU)
    assert backbone(backbone.preprocess(clips(8))).shape == (2, 4, 32)


@pytest.mark.parametrize("names", ["q_bias", "query.bias"])
def test_attention_biases_of_videomae_arrive_under_old_and_new_names(copy, names):
    folder = copy("videomae")
    old = {"q_bias": "query.bias", "v_bias": "value.bias"}

    def rename(state: dict) -> dict:
        assert sum("q_bias" in name for name in state) == 2, "as the published files have it"
        if names == "q_bias":
            return state
        for before, after in old.items():
            state = {name.replace(before, after): value for name, value in state.items()}
        return state

    edit_weights(folder, rename)
    network = create_backbone(str(folder), **CPU).network
    wanted = new_model("videomae").encoder.layer[1].attention.attention
    found = network.encoder.encoder.layer[1].attention.attention
    assert torch.equal(found.query.bias, wanted.query.bias) and wanted.query.bias.abs().sum() > 0
    assert torch.equal(found.value.bias, wanted.value.bias)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {n: t for n, t in state.items() if "q_bias" not in n},
        lambda state: {n.replace("v_bias", "w_bias"): t for n, t in state.items()},
        lambda state: state | {"encoder.layer.9.norm.weight": torch.zeros(3)},
        lambda state: {n: t[:3].clone() if "v_bias" in n else t for n, t in state.items()},
    ],
    ids=["dropped", "renamed", "left over", "another shape"],
)
def test_weights_that_do_not_fit_are_refused(copy, change):
    folder = copy("videomae")
    edit_weights(folder, change)
    with pytest.raises(WeightsError, match="not the weights of a VideoMAEModel") as caught:
        create_backbone(str(folder), **CPU)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_missing_tensor_is_refused(copy, family):
    folder = copy(family)
    heads = video_backbones._FAMILIES[family].heads
    names = [n for n in load_file(folder / "model.safetensors") if n.split(".")[0] not in heads]
    for name in names[:: max(len(names) // 4, 1)]:
        lacking = folder.with_name("lacking")
        shutil.copytree(folder, lacking)
        edit_weights(lacking, lambda state, name=name: {n: state[n] for n in state if n != name})
        with pytest.raises(WeightsError, match="1 missing"):
            create_backbone(str(lacking), **CPU)
        shutil.rmtree(lacking)


class Dangerous:
    def __reduce__(self):
        return print, ("a pickle ran code",)


def test_bad_files_are_named_and_run_no_code(copy, capsys, tmp_path):
    pickled = copy("vivit")
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps({"w": Dangerous()}, protocol=2))
    pointer = copy("videomae")
    (pointer / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    empty = copy("timesformer")
    (empty / "model.safetensors").unlink()
    for folder, cause in [
        (pickled, "not the weights of a VivitModel"),
        (pointer, "git-lfs pointer"),
        (empty, "not the weights of a TimesformerModel"),
    ]:
        with pytest.raises(WeightsError, match=cause) as caught:
            create_backbone(str(folder), **CPU)
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert "ran code" not in capsys.readouterr().out


def test_pickled_tensors_load(copy):
    folder = copy("vivit")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert create_backbone(str(folder), **CPU).dim == 32


def test_code_beside_the_weights_is_not_run(copy, tmp_path):
    folder = copy("videomae")
    config = json.loads((folder / "config.json").read_text())
    mark = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\n")
    config |= {"auto_map": {"AutoModel": "own.Own", "AutoConfig": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    create_backbone(str(folder), **CPU)
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "internvideo2"}))
    with pytest.raises(WeightsError, match="code from a hub is not run"):
        create_backbone(str(folder), **CPU)
    assert not mark.exists()


def test_random_weights_are_marked_and_reproducible_and_leave_the_generator_alone(tiny_row):
    state = torch.get_rng_state()
    first, second = (create_backbone(tiny_row, "random", **CPU) for _ in range(2))
    assert first.description["weights"] == "random" and first.description == second.description
    assert torch.equal(torch.get_rng_state(), state)


# Rows of the catalogue


@pytest.fixture
def tiny_row(monkeypatch) -> str:
    """A row of the catalogue for a tiny V-JEPA 2."""
    fields = {"dim": 32, "frames": 8, "input_size": 32, "tubelet": 2, "source": "tiny/vjepa2"}
    fields |= {"name": "tiny_vjepa2", "architecture": JEPA}
    row = dataclasses.replace(CATALOGUE["vjepa2_large_256"], **fields)
    monkeypatch.setitem(CATALOGUE, row.name, row)
    return row.name


@pytest.fixture
def published(monkeypatch, folders) -> None:
    """The hub holds the tiny models."""
    monkeypatch.setattr(
        video_backbones, "_hub_folder", lambda name, repository: folders[repository.split("/")[1]]
    )


def test_a_row_takes_a_folder_or_the_hub(tiny_row, folders, published):
    local = create_backbone(tiny_row, folders["vjepa2"], **CPU)
    hub = create_backbone("tiny/vjepa2", **CPU)
    assert hub.name == local.name == tiny_row
    assert local.description["weights"] == "file"
    assert hub.description["weights"] == "tiny/vjepa2 (no reference embedding recorded yet)"
    assert hub.description["weights_hash"] == local.description["weights_hash"]


def test_a_checkpoint_of_another_size_is_refused(folders):
    with pytest.raises(WeightsError, match="dim 32 instead of 1024.*input_size 32 instead of 256"):
        create_backbone("vjepa2_large_256", folders["vjepa2"], **CPU)


def test_published_weights_have_to_give_the_recorded_embedding(monkeypatch, tiny_row, published):
    recorded = tuple(reference_embedding(create_backbone(tiny_row, **CPU)))
    row = CATALOGUE[tiny_row]
    monkeypatch.setitem(CATALOGUE, tiny_row, dataclasses.replace(row, reference=recorded))
    assert create_backbone(tiny_row, **CPU).description["weights"] == "tiny/vjepa2"
    create_backbone(tiny_row, device="cpu", precision="bfloat16")
    other = tuple(reversed(recorded))
    monkeypatch.setitem(CATALOGUE, tiny_row, dataclasses.replace(row, reference=other))
    with pytest.raises(WeightsError, match="tiny_vjepa2: its features of the reference clip"):
        create_backbone(tiny_row, **CPU)


@pytest.fixture
def jepa21(monkeypatch) -> str:
    """A row for a tiny V-JEPA 2.1."""
    fields = {"name": "tiny_vjepa21", "dim": 24, "input_size": 32, "frames": 4}
    fields |= {"architecture": {"dim": 24, "depth": 2, "heads": 2}}
    monkeypatch.setitem(
        CATALOGUE, "tiny_vjepa21", dataclasses.replace(CATALOGUE["vjepa21_base_384"], **fields)
    )
    return "tiny_vjepa21"


def test_vjepa21_reads_the_authors_file(jepa21, tmp_path):
    torch.manual_seed(5)
    encoder = JEPAEncoder(24, 2, 2)
    renamed = {"embed.": "patch_embed.proj.", "kind": "video_mod_embed", "attention": "attn"}
    renamed |= {"widen": "mlp.fc1", "narrow": "mlp.fc2"}
    state = {}
    for name, value in encoder.state_dict().items():
        name = name.replace("norm.", "norms_block.3.") if name.startswith("norm.") else name
        for ours, theirs in renamed.items():
            name = name.replace(ours, theirs)
        state[f"module.backbone.{name}"] = value
    torch.save({"ema_encoder": state, "epoch": 1}, tmp_path / "vit.pt")
    backbone = create_backbone(jepa21, tmp_path / "vit.pt", **CPU)
    frames = backbone.preprocess(clips(4))
    tokens = encoder(backbone._normalise(frames))
    torch.testing.assert_close(backbone(frames), tokens.unflatten(1, (2, -1)).mean(2))
    assert backbone.transform.resize == 36, "as V-JEPA 2: int(256 / 224 * S)"
    again = create_backbone(backbone.description, tmp_path / "vit.pt", **CPU)
    assert again.description == backbone.description


def test_vjepa21_says_where_its_file_is(jepa21, tmp_path):
    with pytest.raises(WeightsError, match="curl -LO https://dl.fbaipublicfiles.com.*weights=FILE"):
        create_backbone(jepa21)
    (tmp_path / "half.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(WeightsError, match="half.pt: not a file of weights alone, or cut short"):
        create_backbone(jepa21, tmp_path / "half.pt")
    with pytest.raises(WeightsError, match="no such file"):
        create_backbone(jepa21, tmp_path / "absent.pt")


@pytest.fixture
def intern(monkeypatch) -> str:
    """A row for a tiny InternVideo-Next."""
    shape = {"dim": 24, "depth": 1, "heads": 2, "frames": 4, "classes": 4, "normed": True}
    fields = {"name": "tiny_next", "dim": 24, "input_size": 28, "frames": 4}
    fields |= {"architecture": shape | {"size": 28}}
    row = dataclasses.replace(CATALOGUE["internvideo_next_base"], **fields)
    monkeypatch.setitem(CATALOGUE, row.name, row)
    return row.name


def test_internvideo_reads_the_authors_file(intern, tmp_path):
    torch.manual_seed(6)
    encoder = InternEncoder(**CATALOGUE[intern].architecture)
    names = {ours: theirs for theirs, ours in internvideo._RENAMED.items()}
    state = {}
    for name, value in encoder.state_dict().items():
        inside = name.startswith("blocks.")
        for ours, theirs in names.items():
            name = name.replace(ours, theirs) if inside == ours.startswith(".") else name
        state[f"model.{name}"] = value
    state["model.clip_projector.proj.bias"] = torch.zeros(24)
    save_file(state, tmp_path / "model.safetensors")
    backbone = create_backbone(intern, tmp_path / "model.safetensors", **CPU)
    frames = backbone.preprocess(clips(4))
    assert frames.shape == (2, 4, 3, 28, 28) and backbone.transform.resize == 28
    tokens = encoder(backbone._normalise(frames))
    torch.testing.assert_close(backbone(frames), tokens.unflatten(1, (4, -1)).mean(2))
    del state["model.blocks.0.ls1.gamma"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="1 missing.*the first blocks.0.scale1"):
        create_backbone(intern, tmp_path / "model.safetensors", **CPU)
    with pytest.raises(InputError, match="takes exactly 4 frames, not 8"):
        create_backbone(intern, "random", **CPU, frames=8)


# Frames


def test_encoders_of_a_fixed_length_refuse_another(folders):
    for family in ("videomae", "vivit", "timesformer", "videoprism_vision_model"):
        folder, frames = str(folders[family]), CONFIGS[family][1]["num_frames"]
        with pytest.raises(InputError, match=f"takes exactly {frames} frames, not 6"):
            create_backbone(folder, **CPU, frames=6)
        backbone = create_backbone(folder, **CPU)
        short = torch.zeros(1, 2, 3, backbone.input_size, backbone.input_size)
        with pytest.raises(InputError, match=f"takes {frames} frames, not 2: give frames={frames}"):
            backbone(short)


def test_vjepa_takes_another_even_number_and_says_so(folders):
    backbone = create_backbone(str(folders["vjepa2"]), **CPU, frames=4)
    assert backbone.description["frames"] == backbone.frames == 4
    assert backbone(backbone.preprocess(clips(4))).shape == (2, 2, 32)
    with pytest.raises(InputError, match="7 frames are no multiple of its tubelets of 2.*6 or 8"):
        create_backbone(str(folders["vjepa2"]), **CPU, frames=7)
    with pytest.raises(InputError, match="takes 4 frames, not 8.*or make the backbone with frames"):
        backbone(backbone.preprocess(clips(8)))


def test_a_clip_shorter_than_a_tubelet_is_padded_loudly(folders):
    backbone = create_backbone(str(folders["vjepa2"]), **CPU, frames=2)
    still = backbone.preprocess(clips(1))
    with pytest.warns(UserWarning, match="clips of 1 frames are padded to a tubelet of 2"):
        found = backbone(still)
    assert torch.equal(found, backbone(still.repeat(1, 2, 1, 1, 1)))


def test_other_frames_are_refused(folders):
    backbone = create_backbone(str(folders["vjepa2"]), **CPU)
    with pytest.raises(InputError, match=r"expected frames \(B, T, 3, 32, 32\)"):
        backbone(torch.zeros(8, 3, 32, 32))


# Names and options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling is one of time, mean, class, tokens, got 'max'"),
        ({"pooling": "class"}, "pooling is one of time, mean, tokens, got 'class'"),
        ({"compile": True}, "are for image encoders"),
        ({"middle": 3}, "are for image encoders"),
        ({"device": "tpu"}, "device 'tpu' cannot be used here"),
        ({"precision": "int8"}, "precision is 'int8'"),
    ],
)
def test_options_that_are_not_there_are_refused(folders, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        create_backbone(str(folders["vjepa2"]), **options)
    assert "\n" not in str(caught.value)


def test_image_encoders_have_no_pooling_and_no_length():
    for options in ({"pooling": "mean"}, {"frames": 16}):
        with pytest.raises(InputError, match="pooling and frames are for video encoders"):
            create_backbone("test_vit", "random", **options)


def test_an_image_backbone_takes_any_number_of_frames():
    assert create_backbone("test_vit", "random", device="cpu").frames is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "model_type 'bert' is no video encoder"),
        ({"model_type": "dinov2"}, "an image encoder goes by its timm id"),
        ({}, "model_type None"),
        (None, "no config.json"),
        ("{", "config.json: not readable"),
    ],
)
def test_a_folder_of_another_model_is_refused(tmp_path, config, message):
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=message) as caught:
        create_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_preprocessing_has_to_be_there_and_of_the_same_size(copy):
    folder = copy("videomae")
    file = next(folder / n for n in video_backbones._PROCESSOR_FILES if (folder / n).exists())
    text = json.loads(file.read_text())
    file.write_text(json.dumps(text | {"crop_size": {"height": 64, "width": 64}}))
    with pytest.raises(WeightsError, match="makes 64 pixels, config.json asks for 32"):
        create_backbone(str(folder), **CPU)
    file.unlink()
    with pytest.raises(WeightsError, match="no preprocessor_config.json"):
        create_backbone(str(folder), **CPU)


@pytest.mark.parametrize("name", ["/no/such/folder", "a/b/c"])
def test_a_path_that_is_not_there_is_no_hub_id(name):
    with pytest.raises(WeightsError, match="no such folder, and no id of a hub"):
        create_backbone(name)


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch, folders):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r'pip install "lift\[video\]"'):
        create_backbone(str(folders["vjepa2"]))


# The hub


def hub_error(kind: type[Exception]) -> Exception:
    response = SimpleNamespace(headers={}, request=None, status_code=403)
    return kind("no", response=response)


def test_an_unreachable_hub_a_gate_and_an_unknown_id_are_told_apart(monkeypatch):
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    monkeypatch.setattr(video_backbones, "reach_hub", lambda: None)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    for error, message in [
        (
            OSError("no network"),
            "On a machine with a network run `hf download facebook/vjepa2-vitl",
        ),
        (hub_error(GatedRepoError), "gated.*huggingface.co/facebook/vjepa2-vitl.*`hf auth login`"),
        (
            hub_error(RepositoryNotFoundError),
            "the hub has no facebook/vjepa2-vitl.*or it is private",
        ),
    ]:

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
        with pytest.raises(WeightsError, match=message) as caught:
            create_backbone("vjepa2_large_256")
        assert "weights=FOLDER" in str(caught.value) and "\n" not in str(caught.value)


def test_a_hub_id_of_another_model_is_refused_before_its_weights_come(monkeypatch, tmp_path):
    asked = []

    def download(repository, allow_patterns):
        asked.append(allow_patterns)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
        return str(tmp_path)

    monkeypatch.setattr(video_backbones, "reach_hub", lambda: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(WeightsError, match="model_type 'llama' is no video encoder"):
        create_backbone("someone/text-model")
    assert asked == [["*.json"]]


def test_a_cached_download_needs_no_network(monkeypatch, folders):
    cached = str(folders["vjepa2"] / "config.json")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: cached)
    monkeypatch.setattr(video_backbones, "reach_hub", lambda: pytest.fail("asked the network"))
    backbone = create_backbone("someone/vjepa2", **CPU)
    assert backbone.description["weights"] == "someone/vjepa2"


def test_half_a_download_is_not_complete(tmp_path):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").touch()
    assert not video_backbones._complete(tmp_path)
    (tmp_path / "model-2.safetensors").touch()
    assert video_backbones._complete(tmp_path)


# Description and store


@pytest.mark.parametrize("family", FAMILIES)
def test_a_description_makes_the_same_backbone_again(folders, family):
    backbone = create_backbone(str(folders[family]), **CPU, pooling="mean")
    description = json.loads(json.dumps(backbone.description))
    assert description["pooling"] == "mean" and description["frames"] == backbone.frames
    again = create_backbone(description, **CPU)
    assert again.description == backbone.description
    frames = backbone.preprocess(clips(backbone.frames))
    assert torch.equal(again(frames), backbone(frames))


def test_other_weights_than_described_are_refused(folders):
    description = create_backbone(str(folders["vjepa2"]), **CPU).description
    with pytest.raises(WeightsError, match="made the features"):
        create_backbone({**description, "weights_hash": "0" * 16}, **CPU)


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    noise = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "clip.mp4", noise)
    rows = {"clip_id": ["a"], "path": [str(tmp_path / "clip.mp4")]}
    return pd.DataFrame(rows | {"start": [float("nan")], "end": [float("nan")]})


def test_a_store_holds_time_steps_and_refuses_another_pooling_or_tubelet(folders, table, tmp_path):
    backbone = create_backbone(str(folders["vjepa2"]), **CPU)
    report = extract(table, tmp_path / "store", backbone, 8, workers=0, progress=False)
    assert report.done == 1 and not report.failed
    store = FeatureStore.open(tmp_path / "store")
    assert (store.frames, store.dim) == (4, 32) and store.description["tubelet"] == 2
    mean = create_backbone(str(folders["vjepa2"]), **CPU, pooling="mean")
    with pytest.raises(StoreMismatchError, match="pooling: 'time' in the store, 'mean' asked for"):
        extract(table, tmp_path / "store", mean, 8, workers=0, progress=False)
    prism = create_backbone(str(folders["timesformer"]), **CPU)
    with pytest.raises(StoreMismatchError, match="tubelet: 2 in the store, 1 asked for"):
        extract(table, tmp_path / "store", prism, 4, workers=0, progress=False)


def test_extraction_with_another_number_of_frames_stops_before_work(folders, table, tmp_path):
    backbone = create_backbone(str(folders["videomae"]), **CPU)
    with pytest.raises(InputError, match=r"takes 8 frames, not 16: give frames=8 \(--frames 8\)"):
        extract(table, tmp_path / "store", backbone, 16, workers=0, progress=False)
    assert not (tmp_path / "store").exists()
