"""The loss terms and their sum."""

import math

import pytest
import torch

from lift.geometry import reverse_time
from lift.losses import CurvatureLoss, LiFTLoss, orthogonality_loss, temporal_difference_loss


def test_temporal_difference_is_over_time_not_over_the_batch():
    target = torch.randn(3, 5, 2)
    offset = torch.randn(3, 1, 2)  # differs between clips, constant over time
    assert temporal_difference_loss(target + offset, target) < 1e-10
    over_batch = ((offset[1:] - offset[:-1]) ** 2).mean()
    assert over_batch > 0.01, "a difference over the batch would have seen the offset"


def test_orthogonality_ignores_sign_and_scale():
    static, dynamic = torch.randn(8, 6), torch.randn(8, 6)
    torch.testing.assert_close(
        orthogonality_loss(static, dynamic), orthogonality_loss(-3 * static, 2 * dynamic)
    )
    assert orthogonality_loss(static, static) == pytest.approx(1)


def test_curvature_loss_is_zero_on_lines_and_symmetric_in_time():
    line = torch.linspace(0, 1, 6)[None, :, None] * torch.randn(2, 1, 4)
    walk = torch.randn(2, 6, 4).cumsum(1)
    loss = CurvatureLoss()
    assert loss(line) < 1e-6
    torch.testing.assert_close(loss(walk), loss(reverse_time(walk)))
    there_and_back = torch.tensor([[[0.0], [1.0], [0.0]]])
    assert loss(there_and_back) == pytest.approx(2)


def test_curvature_loss_has_a_finite_gradient_at_a_pause_and_on_a_line():
    for path in (torch.zeros(1, 5, 3), torch.arange(5.0)[None, :, None].repeat(1, 1, 3)):
        path = path.clone().requires_grad_()
        CurvatureLoss()(path).backward()
        assert torch.isfinite(path.grad).all()


def test_curvature_loss_needs_three_frames():
    with pytest.raises(ValueError, match="at least 3 frames"):
        CurvatureLoss()(torch.zeros(1, 2, 4))


def inputs(frames: int = 5) -> tuple[torch.Tensor, ...]:
    return (*torch.randn(2, 4, frames, 6), *torch.randn(2, 4, 3), torch.randn(4, frames, 3))


def test_published_weights_are_the_default():
    terms = LiFTLoss()(*inputs())
    assert set(terms) == {"reconstruction", "orthogonality", "loss"}
    torch.testing.assert_close(
        terms["loss"], terms["reconstruction"] + 0.1 * terms["orthogonality"]
    )


def test_a_term_of_weight_zero_is_not_computed():
    assert "loss" in LiFTLoss()(*inputs(frames=1)), (
        "one frame has neither steps nor angles, and nobody asked for them"
    )
    with pytest.raises(ValueError, match="at least 2 frames"):
        LiFTLoss(temporal_difference=1.0)(*inputs(frames=1))


def test_all_terms_add_up():
    weights = {
        "reconstruction": 0.5,
        "orthogonality": 2.0,
        "temporal_difference": 3.0,
        "curvature": 0.7,
        "decoded_curvature": 0.2,
    }
    terms = LiFTLoss(**weights)(*inputs())
    torch.testing.assert_close(
        terms["loss"], sum(weight * terms[name] for name, weight in weights.items())
    )


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights_that_are_none_are_refused_by_name(weight):
    with pytest.raises(ValueError, match=f"at least 0.*: curvature={weight}$"):
        LiFTLoss(curvature=weight)


def test_a_loss_without_a_term_is_refused():
    with pytest.raises(ValueError, match="all are 0"):
        LiFTLoss(reconstruction=0.0, orthogonality=0.0)


def test_orthogonality_of_several_dynamic_codes_is_the_mean_over_them():
    static, first, second = torch.randn(3, 4, 8)
    parts = [orthogonality_loss(static, code) for code in (first, second)]
    torch.testing.assert_close(
        orthogonality_loss(static, torch.cat([first, second], dim=-1)), sum(parts) / 2
    )
