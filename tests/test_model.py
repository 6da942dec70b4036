"""The model: exact sizes, the latent line, standardisation, bad input."""

import pytest
import torch
from torch import nn

from lift.geometry import curvature, reverse_time
from lift.model import LiFT, LiFTConfig, _Dropout, sinusoidal_positions

SMALL = {"feature_dim": 24, "latent_dim": 16, "depth": 2, "heads": 8}


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def small() -> LiFT:
    torch.manual_seed(0)
    return LiFT(LiFTConfig(**SMALL)).eval()


def test_published_size():
    model = LiFT(LiFTConfig())
    assert parameters(model.encoder) == 7_543_680
    assert parameters(model.decoder) == 1_184_640
    assert parameters(model) == 8_728_320


def test_positions_beyond_the_trained_length_interpolate_over_time():
    trained = sinusoidal_positions(100, 32, max_frames=100)
    longer = sinusoidal_positions(199, 32, max_frames=100)
    torch.testing.assert_close(longer[::2], trained, atol=1e-5, rtol=0)
    between = longer[1::2]
    midpoint = (trained[:-1] + trained[1:]) / 2
    assert (between - midpoint).abs().max() < 0.13, (
        "between its neighbours in time, at every frequency"
    )
    assert LiFT(LiFTConfig(**SMALL, max_frames=4)).eval()(
        torch.randn(1, 9, 24)
    ).reconstruction.shape == (1, 9, 24)


def test_the_latent_path_is_a_line_and_decode_walks_on_it(small):
    x = torch.randn(2, 11, 24)
    with torch.no_grad():
        output = small(x)
        halfway = small.decode(output.static, output.dynamic, torch.tensor([0.5]))
    assert curvature(output.latents.double()).max() < 1e-3
    torch.testing.assert_close(halfway[:, 0], output.reconstruction[:, 5], atol=1e-5, rtol=0)


@pytest.mark.parametrize("depth, frames", [(1, 1), (1, 16), (3, 2), (3, 33)])
def test_the_code_tokens_alone_are_those_of_the_whole_transformer(depth, frames):
    torch.manual_seed(depth)
    encoder = LiFT(LiFTConfig(**SMALL | {"depth": depth})).double().eval().encoder
    x = torch.randn(3, frames, 24, dtype=torch.float64, requires_grad=True)
    whole, alone = torch.stack(encoder(x)[:2]), torch.stack(encoder.code_tokens(x))
    torch.testing.assert_close(alone, whole, atol=1e-12, rtol=0)
    weights = torch.randn_like(whole)
    (expected,) = torch.autograd.grad((weights * whole).sum(), x)
    (found,) = torch.autograd.grad((weights * alone).sum(), x)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_training_computes_the_gradients_of_the_whole_transformer():
    torch.manual_seed(0)
    model = LiFT(LiFTConfig(**SMALL | {"dropout": 0.0})).double().train()
    encoder, x = model.encoder, torch.randn(3, 7, 24, dtype=torch.float64)
    static, dynamic = model.encode(x)
    weights = torch.randn(2, *static.shape, dtype=torch.float64)
    tokens = encoder.transformer(encoder.tokens(x))  # every token in every layer
    whole = torch.stack([encoder.static_head(tokens[:, 0]), encoder.dynamic_head(tokens[:, 1])])
    parameters = list(encoder.parameters())
    found = torch.autograd.grad((weights * torch.stack([static, dynamic])).sum(), parameters)
    expected = torch.autograd.grad((weights * whole).sum(), parameters)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_has_the_distribution_of_torchs(share, dtype):
    torch.manual_seed(0)
    x = torch.full((401, 499), 2.0, dtype=dtype, requires_grad=True)  # an odd number of them
    out = _Dropout(share)(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    dropped, kept = out == 0, out[out != 0]
    torch.testing.assert_close(kept, nn.Dropout(share)(x).max().expand_as(kept), rtol=0.01, atol=0)
    assert torch.equal(gradient, out / 2), "what is dropped has no gradient"
    deviation = (share * (1 - share) / x.numel()) ** 0.5
    assert abs(dropped.double().mean() - share) < 5 * deviation + 2**-17
    for by in (dropped[:, 1:] == dropped[:, :-1], dropped[1:] == dropped[:-1]):  # neighbours
        alike = share**2 + (1 - share) ** 2
        assert (
            abs(by.double().mean() - alike) < 5 * (alike * (1 - alike) / by.numel()) ** 0.5 + 1e-4
        )


def test_dropout_follows_the_seed_and_is_off_where_torchs_is():
    x, dropout = torch.randn(5, 3), _Dropout(0.5)
    torch.manual_seed(1)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(1)
    assert torch.equal(dropout(x), first) and not torch.equal(first, second)
    assert torch.equal(dropout.eval()(x), x)
    assert torch.equal(_Dropout(0.0)(x), x) and torch.equal(_Dropout(1e-9)(x), x)
    assert not _Dropout(1 - 1e-9)(x).any() and not _Dropout(1.0)(x).any()
    assert dropout.train()(torch.empty(0, 3)).shape == (0, 3)
    assert dropout(torch.empty(2, 3, device="meta")).device.type == "meta"


def test_the_published_model_is_not_equivariant(small):
    x = torch.randn(4, 16, 24)
    static, static_reversed = small.encode(x)[0], small.encode(reverse_time(x))[0]
    assert (static - static_reversed).abs().max() > 1e-3


@pytest.mark.parametrize("frames", [1, 2])
def test_one_and_two_frames_work(small, frames):
    output = small(torch.randn(2, frames, 24))
    assert output.reconstruction.shape == (2, frames, 24) and output.reconstruction.isfinite().all()


def test_standardisation_lives_in_the_model(small):
    x = torch.randn(2, 8, 24)
    mean, std = torch.full((24,), 5.0), torch.full((24,), 100.0)
    with torch.no_grad():
        plain = small(x)
        small.set_feature_statistics(mean, std)
        scaled = small(x * 100 + 5)
    torch.testing.assert_close(scaled.static, plain.static, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        scaled.reconstruction, plain.reconstruction * 100 + 5, atol=1e-2, rtol=1e-4
    )


def test_a_feature_that_never_changed_is_not_blown_up(small):
    small.set_feature_statistics(torch.zeros(24), torch.zeros(24))
    x = torch.full((1, 4, 24), 0.01)
    assert torch.equal(small.standardise(x), x)


def test_double_precision_features_are_taken(small):
    x = torch.randn(2, 6, 24)
    assert torch.equal(small.embed(x.double()), small.embed(x))
    static, dynamic = small.encode(x)
    assert small.decode(static, dynamic, torch.linspace(0, 1, 3, dtype=torch.float64)).shape == (
        2,
        3,
        24,
    )


def test_features_of_another_size_are_refused(small):
    with pytest.raises(ValueError, match=r"\(batch, frames, 24\), got \(2, 8, 25\)"):
        small(torch.randn(2, 8, 25))
    with pytest.raises(ValueError, match=r"got \(8, 24\)"):
        small.embed(torch.randn(8, 24))


@pytest.mark.parametrize(
    "field, value",
    [("latent_dim", 15), ("heads", 0), ("dropout", 1.0), ("max_frames", 0), ("depth", 1.5)],
)
def test_wrong_configurations_name_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        LiFTConfig(**{**SMALL, field: value})
