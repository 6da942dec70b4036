"""The variants: paths of their kind, equal size, saving."""

import pytest
import torch

from lift.geometry import curvature, reverse_time, temporal_moments
from lift.model import LiFT, LiFTConfig
from lift.variants import ENCODERS, variant

SMALL = {"feature_dim": 24, "latent_dim": 16, "depth": 2, "heads": 8}


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_free_paths_have_the_codes_of_their_least_squares_line():
    model = variant("free_path")(LiFTConfig(**SMALL)).eval()
    x = torch.randn(2, 9, 24)
    output = model(x)
    mean, slope = temporal_moments(output.latents)
    torch.testing.assert_close(output.dynamic, slope)
    torch.testing.assert_close(output.static + output.dynamic / 2, mean)
    assert curvature(output.latents.double()).max() > 0.1
    torch.testing.assert_close(model.embed(x), torch.cat([output.static, output.dynamic], -1))


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    return {
        key: tuple(value.shape)
        for key, value in variant(name)(LiFTConfig(**SMALL)).state_dict().items()
    }


def test_a_higher_degree_changes_the_dynamic_head_alone():
    plain, cubic = shapes("line"), shapes("polynomial_3")
    assert plain.keys() == cubic.keys()
    head = {f"encoder.dynamic_head.{key}" for key in ("0.weight", "0.bias", "1.weight", "1.bias")}
    assert {key for key in plain if plain[key] != cubic[key]} == head


@pytest.mark.parametrize("name, degree", [("line", 1), ("polynomial_2", 2), ("polynomial_3", 3)])
def test_the_latent_path_is_a_polynomial_of_its_degree(name, degree):
    torch.manual_seed(0)
    model = variant(name)(LiFTConfig(**SMALL)).eval()
    with torch.no_grad():
        output = model(torch.randn(2, 11, 24))
    assert output.dynamic.shape == (2, degree * 16) and model.code_dims == (16, degree * 16)
    assert model.embed(torch.randn(2, 5, 24)).shape == (2, sum(model.code_dims))
    rest = output.latents.double()
    for _ in range(degree):
        rest = rest.diff(dim=1)
        assert rest.abs().max() > 1e-3
    assert rest.diff(dim=1).abs().max() < 1e-5, "differences of one order more vanish"


def test_the_recurrent_path_is_written_from_the_codes_alone():
    torch.manual_seed(0)
    model = variant("lstm")(LiFTConfig(**SMALL)).eval()
    x = torch.randn(3, 9, 24)
    with torch.no_grad():
        output = model(x)
        decoded = model.decode(output.static, output.dynamic, torch.linspace(0, 1, 9))
        backwards = model.embed(reverse_time(x))
    torch.testing.assert_close(decoded, output.reconstruction, atol=1e-5, rtol=0)
    assert curvature(output.latents.double()).max() > 0.01
    assert (backwards - model.embed(x)).abs().max() > 1e-3, "it reads the order"


@pytest.mark.parametrize("name", ENCODERS)
def test_the_variants_are_of_equal_size(name):
    shape = LiFTConfig(feature_dim=1280, latent_dim=128)
    assert parameters(variant(name)(shape)) == pytest.approx(parameters(LiFT(shape)), rel=0.05)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_variants_are_saved_and_loaded(name, tmp_path):
    model = variant(name)(LiFTConfig(**SMALL)).eval()
    model.save_pretrained(tmp_path)
    loaded, x = variant(name).from_pretrained(tmp_path), torch.randn(2, 8, 24)
    assert loaded.config == model.config and torch.equal(loaded.embed(x), model.embed(x))


def test_an_unknown_variant_is_refused_and_the_line_is_lift():
    assert variant("line") is LiFT
    with pytest.raises(ValueError, match="no variant 'gru': choose one of line, polynomial_2"):
        variant("gru")
