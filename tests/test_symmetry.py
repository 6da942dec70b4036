"""Even and odd codes: exact for any weights, the linear path the best there is, embeddings that keep the symmetry."""

import pytest
import torch

from lift.geometry import reverse_time, temporal_moments
from lift.model import LiFT, LiFTConfig
from lift.symmetry import DYNAMIC_WEIGHT, STATIC_WEIGHT, EquivariantEncoder, SkipDecoder, moment_grams, solve_line

SMALL = {"feature_dim": 24, "latent_dim": 16, "heads": 2, "symmetry": "equivariant"}


def randomised(depth: int, seed: int) -> LiFT:
    """An equivariant model whose every weight is random, the heads that start at zero too."""
    torch.manual_seed(seed)
    model = LiFT(LiFTConfig(**SMALL, depth=depth)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def clips(count: int = 40, frames: int = 16, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    place = 3 * torch.randn(count, 1, 24, generator=generator) * torch.linspace(0.2, 1, 24)
    drift = torch.randn(count, 1, 24, generator=generator) * torch.linspace(-1, 1, frames)[:, None]
    return place + drift + 0.3 * torch.randn(count, frames, 24, generator=generator)


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("frames", [1, 2, 3, 16, 33])
@pytest.mark.parametrize("seed", [0, 1])
def test_equivariance_is_exact_for_any_weights_and_length(depth, frames, seed):
    model, x = randomised(depth, seed), torch.randn(4, frames, 24)
    with torch.no_grad():
        (c, v), (c_reversed, v_reversed) = model.encode(x), model.encode(reverse_time(x))
        forward, backward = model(x).reconstruction, model(reverse_time(x)).reconstruction
        even, odd = model.embed(x).split(16, dim=1)
        even_reversed, odd_reversed = model.embed(reverse_time(x)).split(16, dim=1)
    torch.testing.assert_close(c_reversed, c, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(v_reversed, -v, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(backward, reverse_time(forward), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(even_reversed, even, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(odd_reversed, -odd, atol=1e-5, rtol=1e-5)


def test_a_network_makes_a_difference_once_its_heads_are_not_zero():
    torch.manual_seed(0)
    model, x = LiFT(LiFTConfig(**SMALL, depth=2)).eval(), clips()
    with torch.no_grad():
        linear = model.encoder.mean_path(temporal_moments(x)[0])
        torch.testing.assert_close(model.encode(x)[0], linear)
        torch.nn.init.normal_(model.encoder.static_head.weight)
        assert (model.encode(x)[0] - linear).abs().max() > 0.1


def reconstruction_error(basis: torch.Tensor, x: torch.Tensor) -> float:
    """Mean squared error of the line in the span of orthonormal columns `(D, d)`."""
    mean, slope = temporal_moments(x)
    times = torch.linspace(-0.5, 0.5, x.shape[1])[:, None]
    line = mean[:, None] @ basis @ basis.T + times * (slope[:, None] @ basis @ basis.T)
    return float((x - line).square().mean())


def test_the_solved_line_is_the_best_linear_one():
    x = clips()
    encoder, decoder = EquivariantEncoder(24, 5), SkipDecoder(5, 24)
    solve_line(encoder, decoder, moment_grams([x]), motion_weight=1.0)
    with torch.no_grad():
        error = float((decoder(encoder.encode(x)[2]) - x).square().mean())
    basis = decoder.linear.weight.detach()
    torch.testing.assert_close(basis.T @ basis, torch.eye(5), atol=1e-5, rtol=0)
    assert error == pytest.approx(reconstruction_error(basis, x), rel=1e-4)
    for seed in range(20):
        nudge = 0.05 * torch.randn(24, 5, generator=torch.Generator().manual_seed(seed))
        assert reconstruction_error(torch.linalg.qr(basis + nudge)[0], x) >= error - 1e-6


def test_motion_weight_moves_the_latent_space_towards_the_slopes():
    x, lost = clips(), []
    slope = temporal_moments(x)[1]
    for weight in (1.0, 10.0, 1000.0):
        encoder, decoder = EquivariantEncoder(24, 5), SkipDecoder(5, 24)
        solve_line(encoder, decoder, moment_grams([x]), weight)
        basis = decoder.linear.weight.detach()
        lost.append(float((slope - slope @ basis @ basis.T).square().sum()))
    assert lost[0] > lost[1] > lost[2]


def test_grams_do_not_depend_on_the_batches():
    x = clips()
    for whole, parts in zip(moment_grams([x]), moment_grams(x.split(7)), strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-5)


def test_what_cannot_be_solved_is_refused():
    with pytest.raises(ValueError, match="no clips"):
        moment_grams([])
    with pytest.raises(ValueError, match="30 and 24"):
        solve_line(EquivariantEncoder(24, 30), SkipDecoder(30, 24), moment_grams([clips()]))
    with pytest.raises(ValueError, match="symmetry='none' has no linear path"):
        LiFT(LiFTConfig(feature_dim=24, latent_dim=16, depth=1, heads=2)).solve_line([clips()])
    with pytest.raises(ValueError, match="depth must be a whole number of at least 1"):
        LiFTConfig(depth=0)
    assert LiFTConfig(feature_dim=24, latent_dim=15, depth=0, symmetry="equivariant").heads == 8, "no attention, no heads to fit"


def test_embeddings_have_a_direction_of_one_length_and_standardised_appearance():
    model, x = randomised(0, 0), clips()
    with torch.no_grad():
        model.encoder.set_static_statistics(model.encode(x)[0])
        even, odd = model.embed(x).split(16, dim=1)
    torch.testing.assert_close(odd.norm(dim=1), torch.full((40,), DYNAMIC_WEIGHT))
    torch.testing.assert_close(even.mean(0), torch.zeros(16), atol=1e-4, rtol=0)
    assert even.square().sum(1).mean().sqrt() == pytest.approx(STATIC_WEIGHT, rel=1e-3)


def test_a_clip_that_stands_still_has_no_direction():
    model = randomised(0, 0)
    with torch.no_grad():
        embedding = model.embed(torch.ones(2, 16, 24))
    assert embedding.isfinite().all() and embedding[:, 16:].abs().max() < 1e-4


def test_save_and_load_a_line_without_a_network(tmp_path):
    model, x = randomised(0, 0), clips()
    model.save_pretrained(tmp_path)
    assert torch.equal(LiFT.from_pretrained(tmp_path).embed(x), model.embed(x))
