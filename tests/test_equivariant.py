"""The equivariant code: symmetry, invariance of probes to a scaler, batches, saving, bad input."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from lift.equivariant import (
    EquivariantCode,
    cell_flow,
    equal_variance_rotation,
    feature_parts,
    fit_store,
    is_equivariant_code,
    odd_moment,
    odd_statistics,
)
from lift.geometry import temporal_moments
from lift.store import FeatureStore

BACKBONE = {"name": "made up", "dim": 10 + 49 * 3, "grid": 0, "middle": 1, "middle_channels": 3}


def features(
    clips: int = 40, frames: int = 8, dim: int = BACKBONE["dim"], seed: int = 0
) -> torch.Tensor:
    return torch.randn(clips, frames, dim, generator=torch.Generator().manual_seed(seed)).cumsum(1)


@pytest.fixture
def code() -> EquivariantCode:
    return EquivariantCode(static_dim=6, dynamic_dim=12, backbone=BACKBONE).fit(features())


@given(frames=st.integers(1, 20), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_reversal_keeps_c_and_turns_the_sign_of_v_for_any_number_of_frames(frames, seed):
    code = EquivariantCode(static_dim=6, dynamic_dim=12, backbone=BACKBONE).fit(features())
    x = features(5, frames, seed=seed)
    forward, backward = code.transform(x), code.transform(x.flip(1))
    np.testing.assert_allclose(forward[:, :6], backward[:, :6], atol=1e-5)
    np.testing.assert_allclose(forward[:, 6:], -backward[:, 6:], atol=1e-5)


def test_the_odd_moment_of_emphasis_one_is_the_slope():
    x = features()
    torch.testing.assert_close(odd_moment(x), temporal_moments(x)[1], atol=1e-4, rtol=1e-4)
    assert torch.equal(odd_moment(x[:, :1], 2.0), torch.zeros(40, x.shape[-1]))


def test_the_flow_is_that_of_a_plain_loop():
    maps = torch.randn(2, 6, 3, 4, 5, generator=torch.Generator().manual_seed(3))
    y, lag = maps.numpy() - maps.numpy().mean(1, keepdims=True), 2
    pairs = [((r, c), (r, c + 1)) for r in range(3) for c in range(3)] + [
        ((r, c), (r + 1, c)) for r in range(2) for c in range(4)
    ]
    for clip in range(2):
        expected = [
            sum(
                y[clip, t][a] @ y[clip, t + lag][b] - y[clip, t][b] @ y[clip, t + lag][a]
                for t in range(6 - lag)
            )
            for a, b in pairs
        ]
        np.testing.assert_allclose(
            cell_flow(maps, lag)[clip].numpy(), expected, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(("rows", "columns", "part"), [(0, 1, 0), (1, 0, 1)], ids=["right", "down"])
def test_a_moving_spot_flows_where_it_goes(rows, columns, part):
    maps = torch.zeros(1, 7, 7, 7, 1)
    for frame in range(7):
        maps[0, frame, rows * frame or 3, columns * frame or 3] = 1
    flow = cell_flow(maps)[0].split([42, 42])
    assert flow[part].sum() > 1 and abs(float(flow[1 - part].sum())) < 0.5


def test_parts_of_a_feature_are_where_the_backbone_puts_them():
    description = {
        "name": "b", "dim": 4 + 16 + 49 * 2, "grid": 2, "middle": 0, "middle_channels": 2,
    }  # fmt: skip
    x = torch.arange(118.0).expand(1, 3, 118)
    parts = feature_parts(x, description)
    assert torch.equal(parts["whole"][0, 0], torch.arange(4.0))
    assert torch.equal(parts["cells"][0, 0, 1], torch.arange(8.0, 12.0))
    assert torch.equal(parts["middle"][0, 0, 0, 1], torch.tensor([22.0, 23.0]))
    assert parts["middle"].shape == (1, 3, 7, 7, 2)
    assert list(feature_parts(x)) == ["whole"]
    with pytest.raises(ValueError, match="features of 117 dimensions are not those of b with 118"):
        feature_parts(x[..., :117], description)


def test_codes_have_equal_variance_and_v_has_unit_norm(code):
    x = features()
    embedding = code.transform(x)
    assert embedding[:, :6].var(0).max() / embedding[:, :6].var(0).min() < 1.01
    np.testing.assert_allclose(
        np.square(embedding[:, :6]).sum(1).mean(), code.static_norm**2, rtol=1e-3
    )
    np.testing.assert_allclose(np.linalg.norm(embedding[:, 6:], axis=1), 1, atol=1e-5)
    raw = (
        odd_statistics(feature_parts(x, BACKBONE), code.emphasis, code.lags, code.weights)
        @ code.dynamic_basis_
    )
    spread = raw.square().mean(0)
    assert spread.max() / spread.min() < 1.01


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_equal_variance_rotation_is_orthogonal_and_equal(variances):
    variances = torch.tensor(variances, dtype=torch.float64)
    turn = equal_variance_rotation(variances)
    torch.testing.assert_close(
        turn @ turn.T, torch.eye(len(variances), dtype=torch.float64), atol=1e-9, rtol=0
    )
    turned = (turn * variances @ turn.T).diagonal()
    torch.testing.assert_close(
        turned,
        torch.full_like(turned, float(variances.mean())),
        atol=1e-6 * float(variances.max() + 1),
        rtol=0,
    )


def test_a_step_past_the_basis_changes_no_distance(code):
    """The turn is orthogonal: cosine neighbours and a ridge see what they saw."""
    x = features()
    embedding = code.transform(x)[:, 6:]
    plain = np.linalg.eigh(np.asarray(code._sums[3]) / code._sums[0])[1][:, -12:]
    raw = (
        odd_statistics(feature_parts(x, BACKBONE), code.emphasis, code.lags, code.weights).numpy()
        @ plain
    )
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(embedding @ embedding.T, unit @ unit.T, atol=1e-4)


def test_batches_give_what_one_fit_gives(code):
    x = features()
    parts = EquivariantCode(static_dim=6, dynamic_dim=12, backbone=BACKBONE).fit_batches(
        [x[:7], x[7:30], x[30:]]
    )
    np.testing.assert_allclose(parts.transform(x), code.transform(x), atol=1e-4)
    more = clone(code).partial_fit(x[:20]).partial_fit(x[20:])
    np.testing.assert_allclose(more.transform(x), code.transform(x), atol=1e-4)


def _fit_part(x: torch.Tensor) -> EquivariantCode:
    return EquivariantCode(static_dim=6, dynamic_dim=12, backbone=BACKBONE).partial_fit(x)


def test_codes_fitted_in_two_processes_are_one_fit(code):
    x = features()
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        first, second = pool.map(_fit_part, [x[:7], x[7:]])
    merged = first.merge(second)
    np.testing.assert_allclose(merged.transform(x), code.transform(x), atol=1e-6)
    np.testing.assert_allclose(merged.mean_, code.mean_, atol=1e-6)


def test_a_code_that_cannot_be_merged_is_refused(code, tmp_path):
    code.save(tmp_path)
    others = [EquivariantCode.load(tmp_path), clone(code), EquivariantCode().fit(features())]
    for other in others:
        with pytest.raises(ValueError, match="same parameters, fitted and not loaded"):
            code.merge(other)


def test_saved_and_loaded(code, tmp_path):
    code.save(tmp_path / "model")
    again = EquivariantCode.load(tmp_path / "model")
    np.testing.assert_array_equal(again.transform(features()), code.transform(features()))
    assert again.get_params() == code.get_params()
    assert sum(again.code_dims) == 18
    assert is_equivariant_code(tmp_path / "model")
    code.save(tmp_path / "half", torch.float16)
    np.testing.assert_allclose(
        EquivariantCode.load(tmp_path / "half").transform(features()),
        code.transform(features()),
        atol=5e-3,
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"parameters": {"dim": 3}}'),
        ("model.safetensors", "version https://git-lfs"),
    ],
)
def test_a_damaged_folder_is_named(code, tmp_path, name, content):
    code.save(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{tmp_path.name}.*not a saved EquivariantCode"):
        EquivariantCode.load(tmp_path)


def test_other_tensors_and_other_folders_are_refused(code, tmp_path):
    from safetensors.torch import save_file

    code.save(tmp_path)
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="holds .'weight'., an EquivariantCode has"):
        EquivariantCode.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"feature_dim": 3}))
    assert not is_equivariant_code(tmp_path) and not is_equivariant_code(tmp_path / "nowhere")


def test_what_does_not_fit_is_refused(code):
    with pytest.raises(NotFittedError, match="call fit with features"):
        EquivariantCode().transform(features())
    with pytest.raises(ValueError, match="no clips to fit"):
        EquivariantCode().fit_batches([])
    with pytest.raises(ValueError, match=r"expected features \(clips, frames, dimensions\)"):
        code.transform(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="NaN or infinite"):
        code.transform(torch.full((1, 4, BACKBONE["dim"]), torch.nan))
    with pytest.raises(ValueError, match="are not those of made up"):
        code.transform(features(dim=20))


def test_clips_that_do_not_move_have_a_dynamic_code_of_zeros(code):
    still = features()[:3, :1].expand(3, 8, -1)
    np.testing.assert_allclose(code.transform(still)[:, 6:], np.zeros((3, 12)), atol=1e-3)


def test_the_inverse_is_a_line_with_the_direction_of_the_code():
    """On whole-frame features that are lines, it gives back their middle and the direction of their change."""
    generator = torch.Generator().manual_seed(0)
    change = torch.nn.functional.normalize(torch.randn(60, 1, 12, generator=generator), dim=-1) * 3
    x = torch.randn(60, 1, 12, generator=generator) + torch.linspace(-0.5, 0.5, 8)[:, None] * change
    code = EquivariantCode(static_dim=12, dynamic_dim=12).fit(x)
    np.testing.assert_allclose(code.inverse_transform(code.transform(x), frames=8), x, atol=1e-3)
    back = code.inverse_transform(code.transform(x.flip(1)), frames=8)
    np.testing.assert_allclose(back, x.flip(1), atol=1e-3)
    assert code.inverse_transform(code.transform(x), frames=1).shape == (60, 1, 12)


def test_the_inverse_of_a_code_with_a_middle_map_is_of_the_whole_frame(code):
    line = code.inverse_transform(code.transform(features(5)), frames=4)
    assert line.shape == (5, 4, 10) and np.isfinite(line).all()
    np.testing.assert_allclose(np.diff(line, 2, axis=1), 0, atol=1e-4)


def test_a_code_of_features_whose_store_names_no_size_knows_it(tmp_path):
    store = FeatureStore.create(tmp_path / "store", {"name": "my own"}, 4, 6)
    store.append([str(n) for n in range(30)], torch.randn(30, 4, 6))
    code = fit_store(store, store.ids)
    assert code.feature_dim == 6 and code.embed(store.read()).shape[0] == 30
