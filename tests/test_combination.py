"""Two embeddings side by side: the statistics are those of the training clips, and no part hides another."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline

from lift.classifiers import KNNProbe
from lift.combination import Combination, combine
from lift.io import InputError


@pytest.fixture
def tables():
    generator = np.random.default_rng(0)
    ids = [f"c{n}" for n in range(200)]
    sign = 2 * (np.arange(200) % 2)[:, None] - 1
    base = 500 + 100 * generator.normal(size=(200, 30))
    code = 0.01 * (generator.normal(size=(200, 3)) + 1.5 * sign)
    return {"base": pd.DataFrame(base, index=ids), "code": pd.DataFrame(code, index=ids)}


def test_each_part_is_standardised_and_has_norm_1_on_the_training_clips(tables):
    train = tables["base"].index[:120]
    table = combine(tables, train)
    start = 0
    for name, part in tables.items():
        x = part.to_numpy()
        x = (x - x[:120].mean(0)) / x[:120].std(0)
        x = x / np.sqrt((x[:120] ** 2).sum(1)).mean()
        assert np.allclose(table.iloc[:, start : start + part.shape[1]], x, atol=1e-5)
        assert list(table.columns[start : start + 2]) == [f"{name}_0", f"{name}_1"]
        start += part.shape[1]
    assert table.index.equals(tables["base"].index) and start == table.shape[1]


def test_held_out_clips_do_not_change_the_statistics(tables):
    train = tables["base"].index[:120]
    changed = {name: part.copy() for name, part in tables.items()}
    for part in changed.values():
        part.iloc[120:] *= 1e3
    before, after = combine(tables, train), combine(changed, train)
    pd.testing.assert_frame_equal(before.iloc[:120], after.iloc[:120])
    assert not np.allclose(before.iloc[120:], after.iloc[120:])


def test_a_large_part_hides_a_small_one_unless_weighed(tables):
    x = np.hstack(list(tables.values()))
    y, train = np.arange(200) % 2, np.arange(200) < 120
    scores = {}
    for weigh, standardise in (("none", False), ("none", True), ("norm", True)):
        probe = make_pipeline(Combination([30, 3], weigh, standardise), KNNProbe(10))
        probe.fit(x[train], y[train])
        scores[weigh, standardise] = probe.score(x[~train], y[~train])
    assert scores["none", False] < 0.65 < scores["none", True] < scores["norm", True]
    assert scores["norm", True] > 0.9


def test_without_either_nothing_is_changed(tables):
    x = np.hstack(list(tables.values()))
    assert np.array_equal(Combination([30, 3], "none", False).fit(x).transform(x), x)


def test_it_is_a_scikit_learn_transformer(tables):
    x, y = np.hstack(list(tables.values())), np.arange(200) % 2
    combination = Combination([30, 3])
    assert clone(combination).get_params() == {
        "parts": [30, 3],
        "weigh": "norm",
        "standardise": True,
    }
    assert make_pipeline(combination, RidgeClassifier()).fit(x, y).score(x, y) > 0.9


def test_a_part_that_is_constant_stays_finite(tables):
    x = np.hstack([tables["base"], np.full((200, 2), 7.0)])
    combined = Combination([30, 2]).fit(x).transform(x)
    assert np.isfinite(combined).all() and (combined[:, 30:] == 0).all()


@pytest.mark.parametrize(
    "parts, change, message",
    [
        ([30, 4], None, r"parts of \[30, 4\] columns do not fit an array \(200, 33\)"),
        ([30, 0, 3], None, "give the width of each"),
        ([30, 3], np.nan, "1 clips have NaN or infinite values, first row 5"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tables, parts, change, message):
    x = np.hstack(list(tables.values()))
    if change is not None:
        x[5, 2] = change
    with pytest.raises(InputError, match=message):
        Combination(parts).fit(x)


def test_tables_of_other_clips_are_refused_by_name(tables):
    train = list(tables["base"].index[:120])
    with pytest.raises(InputError, match="only one of base and code has: c7; keep the clips"):
        combine({**tables, "code": tables["code"].drop(index="c7")}, train)
    with pytest.raises(InputError, match="code: clips embedded twice: c0"):
        twice = pd.concat([tables["code"], tables["code"].iloc[:1]])
        combine({**tables, "code": twice}, train)
    with pytest.raises(InputError, match="training clips without an embedding: other"):
        combine(tables, [*train, "other"])
    with pytest.raises(InputError, match="training clips without an embedding: all"):
        combine(tables, [])
    with pytest.raises(InputError, match="no table to combine"):
        combine({}, train)
    with pytest.raises(InputError, match="weigh is 'size'; choose norm or none"):
        combine(tables, train, weigh="size")


def test_the_order_of_the_rows_of_a_table_does_not_matter(tables):
    train = tables["base"].index[:120]
    turned = {**tables, "code": tables["code"].iloc[::-1]}
    pd.testing.assert_frame_equal(combine(tables, train), combine(turned, train))
