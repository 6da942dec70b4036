"""Files of models: parity with the authors' checkpoint, folders, the hub, damaged files."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reference_lift import ReferenceLiFT

from lift.checkpoints import CONVERGED_MODEL, PACKAGED_MODEL, official_state_dict
from lift.embedding import load_model
from lift.model import LiFT, LiFTConfig, sinusoidal_positions
from lift.variants import variant

SMALL = {"feature_dim": 24, "latent_dim": 16, "depth": 2, "heads": 8}


@pytest.fixture
def small() -> LiFT:
    torch.manual_seed(0)
    return LiFT(LiFTConfig(**SMALL)).eval()


def lightning_checkpoint(reference: ReferenceLiFT, path):
    state = {f"model.{key}": value for key, value in reference.state_dict().items()}
    torch.save(
        {
            "state_dict": state,
            "epoch": 458,
            "global_step": 834003,
            "pytorch-lightning_version": "2.4.0",
        },
        path,
    )
    return path


@pytest.mark.parametrize(
    "shape",
    [{"feature_dim": 384, "dim": 384, "depth": 4}, {"feature_dim": 40, "dim": 16, "depth": 1}],
)
@pytest.mark.parametrize("frames", [16, 700])
def test_parity_with_the_reference_through_the_official_checkpoint(tmp_path, shape, frames):
    torch.manual_seed(1)
    reference = ReferenceLiFT(**shape, length=5000).eval()
    model = LiFT.from_official_checkpoint(
        lightning_checkpoint(reference, tmp_path / "released.ckpt")
    )
    x = torch.randn(3, frames, shape["feature_dim"])
    with torch.no_grad():
        static, dynamic, reconstruction = reference(x)
        output = model(x)
    torch.testing.assert_close(output.static, static, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.dynamic, dynamic, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.reconstruction, reconstruction, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        model.embed(x), torch.cat([static, dynamic], dim=1), atol=1e-5, rtol=0
    )


def table(
    dim: int,
    length: int = 5000,
    base: float = 10000,
    dtype: type = np.float32,
    first: int = 0,
    power: bool = False,
):
    """Position encodings `(1, length, dim)` by the formula of the release, all steps in `dtype`."""
    position = np.arange(first, first + length).astype(dtype)[:, None]
    index = np.arange(0, dim, 2).astype(dtype)
    if power:
        rate = dtype(base) ** (-index / dtype(dim))
    else:
        rate = np.exp(index * dtype(-math.log(base) / dim))
    angle = position * rate
    return torch.from_numpy(
        np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(1, length, dim).astype(np.float32)
    )


def official_with_table(path: Path, positions: torch.Tensor) -> Path:
    """A released checkpoint of a small model with these position encodings."""
    reference = ReferenceLiFT(24, positions.shape[-1], 1, length=positions.shape[1])
    reference.encoder.pos_encoder.pe.copy_(positions)
    return lightning_checkpoint(reference, path)


@pytest.mark.parametrize("dim", [64, 256, 384, 768])
@pytest.mark.parametrize(
    "how", [{}, {"power": True}, {"dtype": np.float64}], ids=["exp", "power", "float64"]
)
def test_the_sinusoidal_table_is_accepted_however_it_was_rounded(tmp_path, dim, how):
    model = LiFT.from_official_checkpoint(
        official_with_table(tmp_path / "released.ckpt", table(dim, **how))
    )
    ours = sinusoidal_positions(5000, dim, model.config.max_frames)
    torch.testing.assert_close(ours[:16], table(dim, **how)[0, :16], atol=3e-6, rtol=0)
    torch.testing.assert_close(ours, table(dim, **how)[0], atol=1.5e-3, rtol=0)


def one_wrong_row(positions: torch.Tensor) -> torch.Tensor:
    positions[0, 3000, 0] += 0.01
    return positions


@pytest.mark.parametrize(
    "other",
    [
        lambda: table(64, base=9990),
        lambda: table(64, first=1),
        lambda: table(64).unflatten(-1, (32, 2)).flip(-1).flatten(2),  # cosine first
        # all sines, then all cosines
        lambda: torch.cat([table(64)[..., 0::2], table(64)[..., 1::2]], dim=-1),
        lambda: table(64).half().float(),
        lambda: one_wrong_row(table(64)),
        lambda: torch.full((1, 50, 64), torch.nan),
    ],
    ids=["base", "shifted", "cosine first", "halves", "half precision", "one row", "nan"],
)
def test_another_table_of_positions_is_refused(tmp_path, other):
    with pytest.raises(ValueError, match="pe does not hold the sinusoidal position encodings"):
        LiFT.from_official_checkpoint(official_with_table(tmp_path / "other.ckpt", other()))


def test_official_state_dict_loads_into_the_reference():
    model = LiFT(LiFTConfig(**SMALL, max_frames=50)).eval()
    reference = ReferenceLiFT(24, 16, 2, length=50).eval()
    state = {key.removeprefix("model."): value for key, value in official_state_dict(model).items()}
    reference.load_state_dict(state)  # strict: every name and shape
    x = torch.randn(2, 9, 24)
    with torch.no_grad():
        torch.testing.assert_close(reference(x)[2], model(x).reconstruction, atol=1e-5, rtol=0)


def test_official_checkpoint_with_wrong_keys_lists_them(tmp_path):
    reference = ReferenceLiFT(24, 16, 2, length=50)
    path = lightning_checkpoint(reference, tmp_path / "broken.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["model.encoder.extra.weight"] = checkpoint["state_dict"].pop(
        "model.encoder.cls_static"
    )
    torch.save(checkpoint, path)
    with pytest.raises(
        ValueError,
        match=r"missing keys \['model.encoder.cls_static'\].*\['model.encoder.extra.weight'\]",
    ):
        LiFT.from_official_checkpoint(path)
    torch.save({"state_dict": {"head.weight": torch.zeros(2)}}, path)
    with pytest.raises(ValueError, match="not a LiFT checkpoint"):
        LiFT.from_official_checkpoint(path)


def broken_official(path: Path, change) -> Path:
    """A released checkpoint whose state dict was changed."""
    checkpoint = torch.load(
        lightning_checkpoint(ReferenceLiFT(24, 16, 2, length=50), path), weights_only=True
    )
    change(checkpoint["state_dict"])
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("model.encoder.pos_encoder.pe"),
            r"missing keys \['model.encoder.pos_encoder.pe'\]",
        ),
        (
            lambda state: state["model.encoder.pos_encoder.pe"].normal_(),
            "sinusoidal position encodings",
        ),
        (
            lambda state: state.update({"model.encoder.cls_static": torch.zeros(1, 1, 9)}),
            "broken.ckpt.*size mismatch",
        ),
        (
            lambda state: state.update({"model.encoder.transformer.layers.x.y": torch.zeros(1)}),
            "unexpected keys|missing keys",
        ),
    ],
)
def test_official_checkpoints_of_another_model_are_refused(tmp_path, change, message):
    path = broken_official(tmp_path / "broken.ckpt", change)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        LiFT.from_official_checkpoint(path)


@pytest.mark.parametrize(
    "write",
    [lambda path: path.write_text("hello"), lambda path: torch.save([1, 2], path)],
    ids=["text", "list"],
)
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, write):
    write(tmp_path / "page.ckpt")
    with pytest.raises(
        ValueError, match="page.ckpt: (not a file of weights alone|holds no named tensors)"
    ):
        LiFT.from_official_checkpoint(tmp_path / "page.ckpt")


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_a_checkpoint_saved_on_a_gpu_loads_without_one(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("torch.serialization.location_tag", lambda storage: "cuda:0")
        path = lightning_checkpoint(ReferenceLiFT(24, 16, 2, length=50), tmp_path / "gpu.ckpt")
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(path, weights_only=True)
    assert LiFT.from_official_checkpoint(path).feature_mean.device.type == "cpu"


def test_official_checkpoint_is_read_with_weights_only(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"state_dict": {}, "payload": Payload()}, tmp_path / "evil.ckpt")
    with pytest.raises(Exception, match="[Ww]eights"):
        LiFT.from_official_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()


def test_models_without_a_counterpart_are_not_exported(small):
    with pytest.raises(ValueError, match="a variant of LiFT"):
        official_state_dict(variant("lstm")(LiFTConfig(**SMALL)))
    small.set_feature_statistics(torch.ones(24), torch.ones(24))
    with pytest.raises(ValueError, match="standardise"):
        official_state_dict(small)


def test_save_and_load(small, tmp_path):
    small.set_feature_statistics(torch.randn(24), torch.rand(24) + 1)
    small.config.backbone = {"name": "made-up", "weights_hash": "0"}
    small.save_pretrained(
        tmp_path / "model", model_card_kwargs={"training_data": "forty made-up clips"}
    )
    expected = ["README.md", "config.json", "model.safetensors"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == expected
    loaded = LiFT.from_pretrained(tmp_path / "model")
    x = torch.randn(2, 8, 24)
    assert torch.equal(loaded.embed(x), small.embed(x))
    assert loaded.config == small.config and not loaded.training
    assert json.loads((tmp_path / "model" / "config.json").read_text())["latent_dim"] == 16
    assert "forty made-up clips" in (tmp_path / "model" / "README.md").read_text()


def test_pushing_to_the_hub_uploads_weights_config_and_card(small, monkeypatch):
    uploaded = {}

    class Hub:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **_):
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, repo_id, folder_path, **_):
            uploaded[repo_id] = {
                path.name: path.read_bytes() for path in Path(folder_path).iterdir()
            }

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    small.push_to_hub(
        "someone/lift",
        model_card_kwargs={"training_data": "forty made-up clips", "profile": "smoke"},
    )
    files = uploaded["someone/lift"]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert b"forty made-up clips" in files["README.md"] and b"smoke" in files["README.md"]


@pytest.mark.parametrize("change", [{"depth": 3}, {"depth": 1}, {"latent_dim": 32}])
def test_weights_that_do_not_fit_their_configuration_are_refused(small, tmp_path, change):
    small.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match="do not fit config.json"):
        LiFT.from_pretrained(tmp_path)


def test_half_precision_files_load_as_float32(small, tmp_path):
    small.half().save_pretrained(tmp_path)
    assert LiFT.from_pretrained(tmp_path).feature_mean.dtype == torch.float32


def test_loading_prints_nothing_on_standard_output(small, tmp_path, capsys):
    small.save_pretrained(tmp_path)
    capsys.readouterr()
    LiFT.from_pretrained(tmp_path)
    assert capsys.readouterr().out == ""


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no LiFT model here"):
        LiFT.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        LiFT.from_pretrained("./nowhere")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(FileNotFoundError, match="config.json"):
        LiFT.from_pretrained(tmp_path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345678\n"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda whole: POINTER, "git lfs pull"),
        (lambda whole: b"", "again"),
        (lambda whole: whole[: len(whole) // 2], "again"),
    ],
    ids=["pointer", "empty", "cut"],
)
def test_files_that_are_no_model_are_named_in_a_line(small, tmp_path, name, spoil, words):
    small.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(spoil((tmp_path / name).read_bytes()))
    with pytest.raises(ValueError, match=f"{name}: is .*{words}") as caught:
        LiFT.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content, words",
    [
        (POINTER, "git lfs pull"),
        (b"", "is empty"),
        (b"<!DOCTYPE html>", "web page"),
        (b"PK\3\4half", "not a file of weights alone"),
    ],
)
def test_checkpoints_that_are_none_are_named(tmp_path, content, words):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=f"x.ckpt: .*{words}"):
        LiFT.from_official_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize("reference", ["modle", "modle/", "someone/modle"])
def test_a_mistyped_folder_is_no_folder_and_no_model_of_the_hub(monkeypatch, reference):
    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(
        "huggingface_hub.utils.get_session", lambda: SimpleNamespace(head=unreachable)
    )
    with pytest.raises(
        FileNotFoundError,
        match=f"{reference}: there is no such folder here, and no model of this name",
    ):
        LiFT.from_pretrained(reference)


def test_the_state_dict_of_the_published_model_has_the_names_of_the_release():
    model = LiFT(LiFTConfig())
    names = {key.removeprefix("model.") for key in official_state_dict(model)}
    assert names == ReferenceLiFT(384, 384, 4, length=8).state_dict().keys()
    assert model.code_dims == (384, 384)


def test_the_model_that_ships_still_loads():
    model = LiFT.from_pretrained(CONVERGED_MODEL)
    assert (model.config.latent_dim, model.feature_dim) == (128, 1280)
    code = load_model()
    assert sum(code.code_dims) <= 768 and code.feature_dim == code.backbone["dim"]
    with pytest.raises(
        ValueError, match="holds an EquivariantCode, not a LiFT; open it with lift.load_model"
    ):
        LiFT.from_pretrained(PACKAGED_MODEL)


@pytest.mark.parametrize(
    "field, value",
    [("symmetry", "equivariant"), ("degree", 2), ("encoder", "lstm"), ("straightening", "none")],
)
def test_a_model_of_an_earlier_version_loads_if_it_is_a_lift_and_is_named_if_not(
    small, tmp_path, field, value
):
    small.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    old = {"encoder": "transformer", "degree": 1, "straightening": "line", "symmetry": "none"}
    (tmp_path / "config.json").write_text(json.dumps(config | old))
    assert LiFT.from_pretrained(tmp_path).config == small.config
    (tmp_path / "config.json").write_text(json.dumps(config | old | {field: value}))
    with pytest.raises(ValueError, match=f"config.json: .*{field}.* is no LiFT any more"):
        LiFT.from_pretrained(tmp_path)
