"""Intervals: they hold the truth, special cases agree, and what has no interval is refused."""

import numpy as np
import pytest
from scipy.stats import binom

from lift.intervals import (
    IntervalError,
    middle_95,
    resample_accuracies,
    resample_gains,
    resample_means,
    resample_precisions,
    seed_clip_interval,
    wilson_95,
)

MANY = 20000


def holds(draw, truth, trials=150):
    """The share of trials whose interval holds the truth; `draw(generator, seed)` gives samples."""
    generator = np.random.default_rng(0)
    intervals = [middle_95(draw(generator, seed)) for seed in range(trials)]
    return np.mean([low <= truth <= high for low, high in intervals])


def test_accuracies_and_gains_and_precisions_and_means_hold_the_truth():
    sizes = (40, 20, 12, 8, 6)

    def accuracies(generator, seed):
        right = [generator.random(n) < 0.7 for n in sizes]
        return resample_accuracies(right, 300, seed).mean(1)

    def gains(generator, seed):
        pairs = [generator.choice([-1, 0, 1], n, p=[0.1, 0.6, 0.3]) for n in sizes]
        return resample_gains(pairs, 300, seed)

    def precisions(generator, seed):
        return resample_precisions(generator.binomial(5, 0.4, 60), 5, 300, seed)

    def means(generator, seed):
        return resample_means(generator.normal(70, 10, 40), 300, seed)

    for draw, truth in ((accuracies, 70), (gains, 20), (precisions, 40), (means, 70)):
        assert 0.88 <= holds(draw, truth) <= 0.99, draw.__name__


def test_one_item_fewer_makes_the_variance_of_the_mean_unbiased():
    right = np.array([True, True, False, False, True])
    spread = resample_accuracies([right], MANY, 0).var()
    assert spread == pytest.approx(100**2 * right.var(ddof=1) / len(right), rel=0.05)
    values = np.array([1.0, 5.0, 6.0, 8.0])
    assert resample_means(values, MANY, 0).var() == pytest.approx(values.var(ddof=1) / 4, rel=0.05)


def test_precision_at_1_and_gains_without_losses_are_accuracies():
    right = np.random.default_rng(0).random(30) < 0.6
    quantiles, step = [2.5, 50, 97.5], 100 / 29  # samples are multiples of the step
    accuracy = np.percentile(resample_accuracies([right], MANY, 0), quantiles)
    precision = np.percentile(resample_precisions(right.astype(int), 1, MANY, 0), quantiles)
    gain = np.percentile(resample_gains([right.astype(int)], MANY, 0), quantiles)
    assert precision == pytest.approx(accuracy, abs=1.01 * step)
    assert gain == pytest.approx(accuracy, abs=1.01 * step)


def test_the_drawn_accuracies_are_binomial():
    samples = resample_accuracies([np.arange(9) < 6], MANY, 0)[:, 0]
    found = np.bincount(np.rint(samples * 8 / 100).astype(int), minlength=9) / MANY
    assert found == pytest.approx(binom.pmf(np.arange(9), 8, 6 / 9), abs=0.015)


def test_groups_are_resampled_apart_and_weigh_the_same():
    right = [np.arange(20) < 10, np.arange(4) < 4]
    samples = resample_accuracies(right, 500, 0)
    assert samples.shape == (500, 2) and (samples[:, 1] == 100).all() and samples[:, 0].std() > 5
    gains = resample_gains([np.array([1] * 40), np.array([-1] * 2)], 10, 0)
    assert gains.tolist() == [0] * 10


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("size", [1, 7])
def test_items_that_are_all_equal_have_no_width(value, size):
    items = np.full(size, value)
    assert middle_95(resample_accuracies([items == 1], 50, 0)) == (100 * value,) * 2
    assert middle_95(resample_gains([items], 50, 0)) == (100 * value,) * 2
    assert middle_95(resample_precisions(items, 1, 50, 0)) == (100 * value,) * 2
    assert middle_95(resample_means(items * 3.5, 50, 0)) == (3.5 * value,) * 2


def test_equal_seeds_give_equal_numbers_and_other_seeds_do_not():
    values = np.random.default_rng(0).integers(0, 2, 30)
    draws = {
        "accuracies": lambda seed: resample_accuracies([values == 1], 50, seed),
        "gains": lambda seed: resample_gains([values], 50, seed),
        "precisions": lambda seed: resample_precisions(values, 3, 50, seed),
        "means": lambda seed: resample_means(values, 50, seed),
        "seeds": lambda seed: seed_clip_interval(values[None], ["a"] * 30, 51, seed),
    }
    for name, draw in draws.items():
        assert np.array_equal(draw(1), draw(1)) and not np.array_equal(draw(1), draw(2)), name


def test_wilson_is_the_textbook_formula():
    z, right, count = 1.959964, 7, 10
    middle = (right + z**2 / 2) / (count + z**2)
    spread = z / (count + z**2) * np.sqrt(right * (count - right) / count + z**2 / 4)
    expected = (100 * (middle - spread), 100 * (middle + spread))
    assert wilson_95(right, count) == pytest.approx(expected, abs=1e-4)
    assert wilson_95(0, 5)[0] == pytest.approx(0, abs=1e-9) and wilson_95(0, 5)[1] > 40
    assert wilson_95(3, 5) == pytest.approx(tuple(100 - bound for bound in wilson_95(2, 5)[::-1]))


def test_interval_of_one_seed_is_the_bootstrap_over_clips():
    groups = np.repeat(["a", "b"], 200)
    scores = np.where(np.arange(400) % 10 < 7, 100.0, 0.0)[None]
    mean, low, high = seed_clip_interval(scores, groups, samples=4000)
    half = 1.96 * 100 * np.sqrt(0.7 * 0.3 / 400)
    assert mean == pytest.approx(70)
    assert (low, high) == pytest.approx((70 - half, 70 + half), abs=0.6)


def test_interval_over_seeds_is_wider_and_seeds_that_agree_add_nothing():
    groups, generator = np.repeat(["a", "b"], 100), np.random.default_rng(0)
    one = 100.0 * (generator.random((1, 200)) < 0.7)
    apart = np.concatenate([one, one - 20, one + 20])
    cases = {"one": one, "same": np.repeat(one, 3, axis=0), "apart": apart}
    bounds = {name: seed_clip_interval(scores, groups)[1:] for name, scores in cases.items()}
    width = {name: high - low for name, (low, high) in bounds.items()}
    assert width["same"] == pytest.approx(width["one"], rel=0.1)
    assert width["apart"] > 2 * width["one"]


def test_groups_weigh_the_same_whatever_their_size():
    scores = np.array([[100.0] * 30 + [0.0] * 10])
    assert seed_clip_interval(scores, ["a"] * 30 + ["b"] * 10)[0] == 50


def test_scores_of_one_seed_are_as_wide_as_the_accuracies_that_they_are():
    right = np.random.default_rng(0).random(60) < 0.7
    groups = np.repeat(["a", "b", "c"], 20)
    accuracies = resample_accuracies(np.split(right, 3), MANY, 0).mean(1)
    mean, *interval = seed_clip_interval(100.0 * right[None], groups, MANY)
    assert mean == pytest.approx(100 * right.mean())
    assert interval == pytest.approx(list(middle_95(accuracies)), abs=1.8)  # a step of the samples


ONE = np.array([1, 0, 1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: middle_95(np.empty(0)), "needs bootstrap samples, got none"),
        (lambda: wilson_95(4, 3), "from 0 to the count, got 4 of 3"),
        (lambda: wilson_95(0, 0), "got 0 of 0"),
        (lambda: resample_accuracies([], 10, 0), "1 group or more"),
        (lambda: resample_accuracies([ONE == 1, ONE[:0] == 1], 10, 0), "1 item or more in each"),
        (lambda: resample_accuracies([ONE], 0, 0), "1 sample or more, got 0"),
        (lambda: resample_gains([ONE + 1], 10, 0), r"one of \[-1, 0, 1\], got \[1, 2\]"),
        (lambda: resample_precisions(ONE * 6, 5, 10, 0), r"one of \[0, 1, .* got \[0, 6\]"),
        (lambda: resample_means(np.empty(0), 10, 0), "1 item or more"),
        (lambda: seed_clip_interval(np.ones(3), ["a"] * 3), r"got \(3,\) and 3 groups"),
        (lambda: seed_clip_interval(np.ones((2, 3)), ["a"] * 2), r"got \(2, 3\) and 2 groups"),
        (lambda: seed_clip_interval(np.ones((0, 1)), ["a"]), "1 item or more"),
        (lambda: seed_clip_interval(np.ones((1, 0)), []), "1 item or more"),
    ],
)
def test_what_has_no_interval_is_refused(call, words):
    with pytest.raises(IntervalError, match=words):
        call()
