"""Geometry of trajectories: identities that hold for every curve."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lift.geometry import curvature, displacement, reverse_time, straightness, temporal_moments

SHAPES = st.tuples(st.integers(3, 12), st.integers(2, 8), st.integers(0, 2**31 - 1))


def random_curve(shape: tuple[int, int, int]) -> torch.Tensor:
    frames, dim, seed = shape
    return torch.randn(
        frames, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


@given(SHAPES)
def test_a_line_has_no_curvature_and_full_straightness(shape):
    start, direction = random_curve(shape)[:2]
    line = start + torch.linspace(0, 1, shape[0], dtype=torch.float64)[:, None] * direction
    assert float(curvature(line).max()) < 1e-5
    assert math.isclose(float(straightness(line)), 1, abs_tol=1e-9)


@given(SHAPES, st.floats(0.1, 10))
def test_rotation_translation_and_scale_change_nothing(shape, scale):
    x = random_curve(shape)
    rotation = torch.linalg.qr(torch.randn(shape[1], shape[1], dtype=torch.float64)).Q
    moved = scale * x @ rotation.T + 3
    torch.testing.assert_close(curvature(moved), curvature(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(straightness(moved), straightness(x))


@given(SHAPES)
def test_time_reversal_reverses_curvature_and_keeps_straightness(shape):
    x = random_curve(shape)
    torch.testing.assert_close(curvature(reverse_time(x)), curvature(x).flip(-1), atol=1e-9, rtol=0)
    torch.testing.assert_close(straightness(reverse_time(x)), straightness(x))


@given(SHAPES)
def test_mean_is_even_and_slope_is_odd(shape):
    x = random_curve(shape)
    (mean, slope), (mean_reversed, slope_reversed) = (
        temporal_moments(x),
        temporal_moments(reverse_time(x)),
    )
    torch.testing.assert_close(mean_reversed, mean)
    torch.testing.assert_close(slope_reversed, -slope)


@given(SHAPES)
def test_slope_is_the_least_squares_fit(shape):
    x = random_curve(shape)
    times = torch.linspace(0, 1, len(x), dtype=torch.float64)
    design = torch.stack([torch.ones_like(times), times], dim=1)
    torch.testing.assert_close(temporal_moments(x)[1], torch.linalg.lstsq(design, x).solution[1])


@given(SHAPES)
def test_curvature_agrees_with_the_arccos_definition(shape):
    step = displacement(random_curve(shape))
    cosine = torch.nn.functional.cosine_similarity(step[:-1], step[1:], dim=-1)
    torch.testing.assert_close(
        curvature(random_curve(shape)), torch.arccos(cosine.clamp(-1, 1)), atol=1e-6, rtol=0
    )


def test_leading_axes_and_degrees():
    x = torch.randn(2, 3, 7, 4)
    assert displacement(x).shape == (2, 3, 6, 4)
    assert curvature(x).shape == (2, 3, 5)
    assert straightness(x).shape == (2, 3)
    torch.testing.assert_close(curvature(x, degrees=True), curvature(x).rad2deg())


def test_small_angles_keep_their_digits():
    angle = 1e-6
    x = torch.tensor(
        [[0.0, 0.0], [1.0, 0.0], [1.0 + math.cos(angle), math.sin(angle)]], dtype=torch.float64
    )
    assert math.isclose(float(curvature(x)[0]), angle, rel_tol=1e-6)


def test_a_pause_has_no_angle():
    x = torch.tensor([[0.0], [1.0], [1.0], [2.0]])
    assert curvature(x).isnan().all()
    assert straightness(torch.zeros(4, 2)).isnan()


@pytest.mark.parametrize(
    "function, frames, words", [(displacement, 1, "at least 2"), (curvature, 2, "at least 3")]
)
def test_short_clips_are_refused_with_what_is_needed(function, frames, words):
    with pytest.raises(ValueError, match=f"{words} frames, got T={frames}"):
        function(torch.zeros(frames, 4))


def test_one_frame_does_not_move():
    mean, slope = temporal_moments(torch.ones(1, 3))
    assert torch.equal(mean, torch.ones(3)) and torch.equal(slope, torch.zeros(3))
