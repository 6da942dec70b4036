"""The catalogue: rows that tell the truth, and what `lift doctor` says of them."""

import json

import pytest
import timm
import torch
from typer.testing import CliRunner

from lift.backbones import _hub_repository, create_backbone
from lift.catalogue import CATALOGUE, catalogue_table, find_entry, hub_repository, list_backbones
from lift.cli import app
from lift.io import InputError
from lift.video_backbones import empty_network

IMAGES = [entry for entry in CATALOGUE.values() if entry.kind == "image"]
VIDEOS = [e for e in CATALOGUE.values() if e.kind == "video" and e.loader != "none"]
POOLINGS = {"avg": "mean", "token": "class", "map": "attention"}


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_repository_of_a_row_is_the_one_that_timm_downloads_from():
    rows = [entry for entry in CATALOGUE.values() if entry.loader == "timm"]
    assert {e.name: hub_repository(e) for e in rows} == {
        e.name: _hub_repository(e.source) for e in rows
    }


@pytest.mark.parametrize("entry", IMAGES, ids=lambda entry: entry.name)
def test_image_rows_are_what_timm_builds(entry):
    with torch.device("meta"):
        network = timm.create_model(entry.source, pretrained=False, num_classes=0)
    facts = network.pretrained_cfg
    assert (entry.dim, entry.parameters) == (network.num_features, parameters(network))
    assert entry.licence == facts["license"]
    pool = getattr(network, "global_pool", None)  # a module in convolutional networks
    assert entry.pooling == (POOLINGS.get(pool, "mean"),)
    dinov2 = "dinov2" in entry.name  # fed at 224, as in the paper
    assert entry.input_size == (224 if dinov2 else facts["input_size"][-1])


@pytest.mark.parametrize("entry", VIDEOS, ids=lambda entry: entry.name)
def test_video_rows_are_what_their_classes_build(entry, monkeypatch):
    from transformers.models.videomae import modeling_videomae

    monkeypatch.setattr(  # seconds of a Python loop, and no parameter
        modeling_videomae, "get_sinusoid_encoding_table", lambda n, d: torch.zeros(1, n, d)
    )
    with torch.device("meta"):
        network = empty_network(entry)
    assert entry.parameters == parameters(network)
    if entry.family == "internvideo":  # a matrix product cuts its patches
        assert (entry.dim, entry.tubelet) == (network.embed.out_features, 1)
        return
    window = next(m for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Conv3d)))
    assert entry.dim == window.out_channels
    assert entry.tubelet == (window.kernel_size[0] if len(window.kernel_size) == 3 else 1)


def test_names_and_sources_are_unique_and_cells_hold_no_guess():
    table = catalogue_table()
    assert len(table) == table["name"].nunique() == table["source"].nunique()
    assert set(table["gate"]) == {"", "open"}, "a gate that is not confirmed is empty"
    jepa21 = table[table["name"].str.startswith("vjepa21")]
    assert set(jepa21["licence"]) == {""}, "the licence of these weights is not confirmed"
    assert not table[table["kind"] == "image"][["frames", "tubelet"]].notna().any(axis=None)


def test_a_hub_id_finds_its_row_and_a_timm_id_does_not():
    assert find_entry("google/videoprism-base-f16r288").name == "videoprism_base"
    assert find_entry("vit_small_patch14_reg4_dinov2.lvd142m") is None
    assert find_entry("no_such_net") is None


@pytest.mark.parametrize("name", ["internvideo2_1b", "OpenGVLab/VideoMAEv2-giant"])
def test_a_row_that_nothing_loads_says_why(name):
    with pytest.raises(InputError, match="no adapter: .*`lift doctor` lists") as caught:
        create_backbone(name)
    assert "\n" not in str(caught.value)


def test_every_row_says_whether_it_is_here_or_how_to_get_it(monkeypatch):
    monkeypatch.setattr("lift.catalogue.cached_weights", lambda repository: None)
    table = list_backbones().set_index("name")
    assert set(table["weights"]) == {"here", "missing"}
    assert table.loc["dinov3_vitb16", "from"] == "hf download timm/vit_base_patch16_dinov3.lvd1689m"
    assert table.loc["vjepa21_base_384", "from"].startswith("curl -LO https://")
    assert table.loc["vjepa2_large_256", "from"] == "hf download facebook/vjepa2-vitl-fpc64-256"


def test_doctor_prints_one_line_per_backbone_and_what_is_gated():
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    for name in CATALOGUE:
        assert sum(line.strip().split(" ")[0] == name for line in lines) == 1
    assert "extra video: ready" in result.output
    assert (
        "note on dinov3_vits16 to dinov3_convnext_large: facebook's own copy is gated"
        in result.output
    )


def test_doctor_speaks_json():
    rows = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)["backbones"]
    by_name = {row["name"]: row for row in rows}
    assert by_name["efficientnet_lite0"]["frames"] is None
    assert by_name["vjepa2_large_256"]["frames"] == 64
