"""Costs: counted arithmetic that agrees with pencil and paper."""

import pytest

from lift.backbones import create_backbone
from lift.costs import architecture_cost, clip_cost, cost_table
from lift.io import InputError


@pytest.fixture(scope="module")
def lite():
    return create_backbone("efficientnet_lite0", device="cpu", precision="float32")


def test_one_clip_costs_what_its_frames_cost(lite):
    four, eight = clip_cost(lite, 4), clip_cost(lite, 8)
    assert eight["gflops"] == pytest.approx(2 * four["gflops"])
    assert eight["embedding_bytes"] == 8 * 1280 * 2
    assert four["parameters"] == lite.parameter_count
    assert clip_cost(lite)["frames"] == 16, "as in the paper"


def test_an_architecture_costs_the_same_without_weights(lite):
    assert architecture_cost("efficientnet_lite0", 4) == clip_cost(lite, 4)


def test_attention_is_counted():
    n, dim, depth = 4 * 24 * 24, 768, 12  # tokens of 8 frames, width, blocks
    products = depth * (4 * dim**2 + 8 * dim**2) * n + 3 * 2 * 16**2 * dim * n
    attention = depth * 2 * n**2 * dim
    counted = architecture_cost("vjepa21_base_384", 8)["gflops"]
    assert counted == pytest.approx(2 * (products + attention) / 1e9, rel=1e-6)


def test_features_of_a_video_encoder_are_per_time_step():
    cost = architecture_cost("videoprism_large")
    assert (cost["frames"], cost["embedding_bytes"]) == (8, 8 * 1024 * 2)
    assert architecture_cost("timesformer_base_k400")["embedding_bytes"] == 8 * 768 * 2


def test_a_compiled_network_is_counted_as_it_is_before(lite):
    compiled = create_backbone("efficientnet_lite0", device="cpu", compile=True)
    assert clip_cost(compiled, 2) == clip_cost(lite, 2)


def test_a_table_has_a_row_per_backbone_and_ratios_to_the_first(lite):
    small = create_backbone("test_vit", "random", device="cpu")
    table = cost_table({"lite": lite, "tiny": small}, frames=2, clips=1, rounds=2)
    assert table["backbone"].tolist() == ["lite", "tiny"]
    assert table["relative"][0] == 1 and (table["clips_per_second"] > 0).all()
    ratio = table["clips_per_second"][1] / table["clips_per_second"][0]
    assert table["relative"][1] == pytest.approx(ratio)


def test_what_cannot_be_counted_is_refused(lite):
    with pytest.raises(InputError, match="test_vit: not in the catalogue"):
        architecture_cost("test_vit")
    with pytest.raises(InputError, match="no adapter"):
        architecture_cost("internvideo2_1b")
    with pytest.raises(InputError, match="clips and rounds of at least 1"):
        cost_table({"lite": lite}, rounds=0)
