"""Probes: what others compute by other means, what a set of tokens cannot know, and what stays out of memory."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from lift.classifiers import (
    AttentiveProbe,
    EfficientPool,
    EfficientProbe,
    KNNProbe,
    MLPProbe,
    QueryBlock,
    TokenView,
    _rate,
    attention_block,
    inner_splits,
    knn_cv,
    mlp_cv,
    ridge_cv,
    select,
    sinusoids,
    token_moments,
)
from lift.io import InputError
from lift.store import FeatureStore, StoreView

QUICK = {"epochs": 2, "min_steps": 1}
SMALL = [AttentiveProbe(blocks=2, heads=2, **QUICK), EfficientProbe(queries=4, **QUICK)]


def make_tokens(clips, seed=0, frames=8, dim=16, static=0.0):
    """Tokens of doors that open or close: the frames of both classes are the same but for `static`."""
    generator = np.random.default_rng(seed)
    y = np.arange(clips) % 2
    sign = (2 * y - 1)[:, None, None]
    x = generator.normal(size=(clips, frames, dim)) + static * sign
    x[:, :, :4] += sign * np.linspace(-2, 2, frames)[:, None]
    return x.astype(np.float32), y


@pytest.fixture
def store(tmp_path):
    """Two shards of doors, and their classes by clip."""
    x, y = make_tokens(120, static=0.5)
    description, sampling = {"name": "made up", "tubelet": 2}, {"frames": 8, "spread": "even"}
    store = FeatureStore.create(tmp_path / "store", description, 8, 16, sampling)
    ids = [f"c{n}" for n in range(120)]
    store.append(ids[:70], torch.from_numpy(x[:70]))
    store.append(ids[70:], torch.from_numpy(x[70:]))
    return store, ids, np.array(["close", "open"])[y]


@pytest.mark.parametrize("k, temperature", [(1, 0.07), (5, 0.07), (20, 0.2), (500, 0.1)])
def test_neighbours_vote_as_in_a_plain_loop(k, temperature):
    generator = np.random.default_rng(0)
    x, new = generator.normal(size=(60, 8)), generator.normal(size=(30, 8))
    y = generator.integers(3, size=60)
    votes = np.zeros((30, 3))
    for row, query in enumerate(new):
        cosine = x @ query / np.linalg.norm(x, axis=1) / np.linalg.norm(query)
        for place in np.argsort(-cosine)[:k]:
            votes[row, y[place]] += np.exp(cosine[place] / temperature)
    probe = KNNProbe(k, temperature).fit(x, y)
    assert np.allclose(probe.predict_proba(new), votes / votes.sum(1, keepdims=True), atol=1e-9)
    assert (probe.predict(new) == votes.argmax(1)).all()


def test_hot_neighbours_vote_as_one_man_one_vote():
    generator = np.random.default_rng(1)
    x, new, y = generator.normal(size=(60, 8)), generator.normal(size=(30, 8)), np.arange(60) % 2
    unit = KNeighborsClassifier(7, metric="cosine").fit(x, y)
    assert (KNNProbe(7, temperature=1e6).fit(x, y).predict(new) == unit.predict(new)).all()


def test_settings_of_neighbours_that_make_no_sense_are_refused():
    for probe in (KNNProbe(k=0), KNNProbe(temperature=0)):
        with pytest.raises(InputError, match="both must be above 0"):
            probe.fit(np.eye(3), [0, 1, 1])


def test_a_network_learns_what_a_plane_cannot_and_ends_without_a_warning():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(600, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    probe = MLPProbe((32,), max_iter=60, random_state=0).fit(x[:400], y[:400])
    assert probe.score(x[400:], y[400:]) > 0.85
    assert RidgeClassifier().fit(x[:400], y[:400]).score(x[400:], y[400:]) < 0.65
    assert clone(probe).get_params() == probe.get_params()


def test_folds_keep_videos_together_and_classes_apart():
    generator = np.random.default_rng(0)
    videos, y = generator.integers(12, size=80), np.arange(80) % 2
    splits = inner_splits(y, videos, folds=4)
    assert sorted(np.concatenate([held for _, held in splits])) == list(range(80))
    for fit, held in splits:
        assert not set(videos[fit]) & set(videos[held])
        assert set(y[fit]) == {0, 1} and set(fit) | set(held) == set(range(80))
    assert len(inner_splits(y, videos, folds=1)) == 1
    again = inner_splits(y, videos, folds=4)
    assert all((a[1] == b[1]).all() for a, b in zip(splits, again, strict=True))


@pytest.mark.parametrize(
    "y, groups, count",
    [
        ([0, 0, 0, 1], None, 0),  # the only clip of a class
        ([0, 0, 0, 1, 1], None, 2),
        ([0, 0, 1, 1], [5, 5, 5, 5], 0),  # one video
        ([0, 1, 2, 3], None, 0),
        ([0, 0, 0, 0, 0, 1, 1, 1, 1, 2], None, 5),  # a rare class among many
    ],
)
def test_folds_of_few_clips(y, groups, count):
    splits = inner_splits(np.array(y), groups and np.array(groups))
    assert len(splits) == count and all(len(set(np.array(y)[fit])) > 1 for fit, _ in splits)


def test_selection_is_scikit_learns_on_the_same_folds():
    generator = np.random.default_rng(0)
    x, y, videos = generator.normal(size=(90, 40)), np.arange(90) % 2, np.arange(90) // 3
    x[:, :4] += 0.5 * (2 * y[:, None] - 1)
    probe = ridge_cv().fit(x, y, groups=videos)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), RidgeClassifier()), ridge_cv().grid, cv=folds
    ).fit(x, y, groups=videos)
    assert probe.chosen_ == search.best_params_
    assert (probe.predict(x) == search.predict(x)).all()


def test_selection_does_not_look_at_the_clips_that_are_scored():
    """Labels drawn at random: the best of many settings is at chance on new clips, not above."""
    scores = []
    for seed in range(10):
        generator = np.random.default_rng(seed)
        x, y = generator.normal(size=(60, 30)), np.arange(60) % 2
        new, labels = generator.normal(size=(200, 30)), np.arange(200) % 2
        scores.append(ridge_cv().fit(x, y).score(new, labels))
    assert 0.46 < np.mean(scores) < 0.54


def test_a_class_of_one_clip_leaves_the_settings_as_they_are():
    x, y = np.random.default_rng(0).normal(size=(6, 3)), [0, 0, 0, 0, 0, 1]
    probe = ridge_cv().fit(x, y)
    reference = make_pipeline(StandardScaler(), RidgeClassifier()).fit(x, y)
    assert probe.chosen_ == {} and (probe.predict(x) == reference.predict(x)).all()
    assert mlp_cv().fit(x, y).chosen_ == {}


def test_only_what_the_estimator_can_do_is_offered():
    ridge, logistic = ridge_cv(), select(LogisticRegression(), {"C": [1.0]})
    assert not hasattr(ridge, "predict_proba") and hasattr(logistic, "predict_proba")
    assert not hasattr(ridge, "fit_store") and hasattr(select(SMALL[0], {}), "fit_store")
    assert select(SMALL[0], {}).folds == 1 and ridge.folds == 5


def test_positions_are_those_of_the_paper():
    positions = sinusoids(6, 10)
    for t in range(6):
        for i in range(5):
            angle = t / 10000 ** (2 * i / 10)
            assert positions[t, 2 * i] == pytest.approx(np.sin(angle), abs=1e-6)
            assert positions[t, 2 * i + 1] == pytest.approx(np.cos(angle), abs=1e-6)
    assert torch.equal(sinusoids(6, 9), torch.cat([sinusoids(6, 9)], 1))
    assert sinusoids(6, 9).shape == (6, 9)


def test_moments_in_batches_are_those_of_all_tokens_far_from_zero():
    x = 1000 + torch.randn(50, 8, 6, dtype=torch.float64) * torch.arange(6)
    mean, scale = token_moments(x.float().split(7))
    flat = x.float().double().flatten(0, 1)
    assert torch.allclose(mean.double(), flat.mean(0), atol=1e-3)
    assert torch.allclose(scale[1:].double(), flat.std(0, unbiased=False)[1:], rtol=1e-4)
    assert scale[0] == 1, "a dimension that is constant"


def attend(q, k, v, heads):
    """Softmax attention, head by head, in numpy."""
    parts = []
    for one in zip(*(np.split(a, heads, axis=-1) for a in (q, k, v)), strict=True):
        weight = np.exp(one[0] @ one[1].T / np.sqrt(one[0].shape[-1]))
        parts.append(weight / weight.sum(1, keepdims=True) @ one[2])
    return np.concatenate(parts, axis=-1)


def test_the_query_block_is_v_jepas_equation():
    block = QueryBlock(dim=12, heads=3, queries=2).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(1, 7, 12, dtype=torch.float64)
    w = {name: value.detach().numpy() for name, value in block.state_dict().items()}

    def norm(a, name):
        a = (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5)
        return a * w[f"{name}.weight"] + w[f"{name}.bias"]

    tokens, q = norm(x[0].numpy(), "token_norm"), w["queries"]
    weights = np.split(w["attention.in_proj_weight"], 3)
    biases = np.split(w["attention.in_proj_bias"], 3)
    projected = [
        a @ weight.T + bias
        for a, weight, bias in zip((q, tokens, tokens), weights, biases, strict=True)
    ]
    out = attend(*projected, heads=3)
    q = q + out @ w["attention.out_proj.weight"].T + w["attention.out_proj.bias"]
    hidden = norm(q, "norm") @ w["mlp.0.weight"].T + w["mlp.0.bias"]
    hidden = F.gelu(torch.from_numpy(hidden)).numpy()
    expected = q + hidden @ w["mlp.2.weight"].T + w["mlp.2.bias"]
    assert np.allclose(block(x)[0].detach().numpy(), expected, atol=1e-10)


def test_a_block_of_self_attention_is_torchs_attention_between_norms():
    block, x = attention_block(12, 3).eval(), torch.randn(4, 7, 12)
    inner = F.layer_norm(x, (12,), block.norm1.weight, block.norm1.bias)
    y = x + block.self_attn(inner, inner, inner)[0]
    inner = F.layer_norm(y, (12,), block.norm2.weight, block.norm2.bias)
    expected = y + block.linear2(F.gelu(block.linear1(inner)))
    assert torch.allclose(block(x), expected, atol=1e-5)


def test_efficient_probing_gives_each_query_its_slice_of_one_value_matrix():
    pool, x = EfficientPool(dim=12, queries=3).double(), torch.randn(2, 7, 12, dtype=torch.float64)
    torch.nn.init.normal_(pool.queries)
    queries, value = pool.queries.detach().numpy(), pool.value.weight.detach().numpy()
    for clip, found in zip(x.numpy(), pool(x).detach().numpy(), strict=True):
        slices = []
        for m in range(3):
            weight = np.exp(clip @ queries[m] / np.sqrt(12))
            pooled = weight @ (clip @ value.T) / weight.sum()
            slices.append(pooled[4 * m : 4 * m + 4])
        assert np.allclose(found, np.concatenate(slices))
    assert sum(p.numel() for p in pool.parameters()) == 3 * 12 + 12 * 12, "no keys, no queries"


@pytest.mark.parametrize(
    "probe",
    [
        AttentiveProbe(blocks=2, heads=4, learning_rate=2e-3),
        EfficientProbe(queries=4, learning_rate=1e-2),
    ],
    ids=["attentive", "efficient"],
)
def test_order_is_learned_with_positions_only_and_lost_when_shuffled(probe):
    (x, y), (new, labels) = make_tokens(240), make_tokens(400, seed=1)
    generator = np.random.default_rng(2)
    shuffled = np.stack([clip[generator.permutation(8)] for clip in new])
    plain = clone(probe).fit(x, y)
    told = clone(probe).set_params(positions="sinusoid").fit(x, y)
    assert 0.42 < plain.score(new, labels) < 0.58, "a set of tokens has no order"
    assert np.allclose(plain.predict_proba(new), plain.predict_proba(shuffled), atol=1e-4)
    assert told.score(new, labels) > 0.85, "positions teach it"
    assert 0.42 < told.score(shuffled, labels) < 0.58, "the wrong order unteaches it"


@pytest.mark.parametrize("probe", SMALL, ids=["attentive", "efficient"])
def test_the_seed_decides_everything_and_touches_nothing_else(probe):
    x, y = make_tokens(40)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again = (clone(probe).fit(x, y).predict_proba(x) for _ in range(2))
    other = clone(probe).set_params(seed=1).fit(x, y).predict_proba(x)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("probe", SMALL, ids=["attentive", "efficient"])
def test_a_store_gives_the_answers_of_an_array(probe, store):
    store, ids, labels = store
    chosen = ids[::-1][:100]
    x = store.read(chosen)
    from_store = clone(probe).fit_store(store, chosen, labels[::-1][:100])
    from_array = clone(probe).fit(x, labels[::-1][:100])
    assert np.array_equal(from_store.predict_store(store, chosen), from_array.predict(x))
    assert np.array_equal(
        from_store.log_proba_store(store, chosen), from_array.predict_log_proba(x)
    )
    assert set(from_store.classes_) == {"open", "close"}
    assert np.allclose(from_array.predict_proba(x).sum(1), 1)


@pytest.mark.parametrize("probe", SMALL, ids=["attentive", "efficient"])
def test_scikit_learns_conventions(probe):
    x, y = make_tokens(30, static=1.0)
    assert clone(probe).get_params() == probe.get_params()
    fitted = clone(probe).set_params(min_steps=100, learning_rate=3e-3).fit(x, y)
    assert fitted.score(x, y) > 0.9
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict(x), fitted.predict(x))
    search = GridSearchCV(clone(probe), {"learning_rate": [1e-3]}, cv=2).fit(x, y)
    assert search.predict(x).shape == (30,)


def test_heads_and_queries_that_do_not_divide_become_the_next_that_does():
    x, y = make_tokens(20, dim=14)
    attentive = AttentiveProbe(blocks=2, heads=16, **QUICK).fit(x, y)
    assert attentive.network_[1].self_attn.num_heads == 14
    attentive = AttentiveProbe(blocks=1, heads=6, **QUICK).fit(x, y)
    assert attentive.network_[1].attention.num_heads == 2
    assert len(EfficientProbe(queries=32, **QUICK).fit(x, y).network_[1].queries) == 14


def test_the_default_is_the_probe_of_v_jepa_2():
    layers = AttentiveProbe().layers(32, 5)
    assert [type(layer).__name__ for layer in layers[:3]] == ["TransformerEncoderLayer"] * 3
    assert layers[3].queries.shape == (1, 32) and layers[3].attention.num_heads == 16
    assert layers[-1].out_features == 5 and len(layers) == 6


def test_the_learning_rate_is_chosen_on_clips_held_out_of_the_training_clips(store):
    store, ids, labels = store
    asked = []

    class Spy(TokenView):
        def read(self, ids):
            ids = list(ids)
            asked.extend(ids)
            return super().read(ids)

    spy = Spy(store, lambda x, ids: x)
    grid = {"learning_rate": [1e-8, 1e-2]}
    probe = select(EfficientProbe(queries=4, min_steps=100), grid)
    probe.fit_store(spy, ids[:80], labels[:80], groups=np.arange(80) // 2)
    assert set(asked) == set(ids[:80]), "no scored clip was read"
    assert probe.chosen_ == {"learning_rate": 1e-2}
    assert (probe.predict_store(store, ids[80:]) == labels[80:]).mean() > 0.9
    assert probe.log_proba_store(store, ids[80:]).shape == (40, 2)


def test_another_store_is_refused_with_the_field_that_differs(store, tmp_path):
    store, ids, labels = store
    probe = clone(SMALL[1]).fit_store(store, ids, labels)
    for change, message in (
        ({"description": {"name": "made up", "tubelet": 1}}, "tubelet: 2 when fitted, 1 now"),
        ({"sampling": {"frames": 8, "spread": "first"}}, "sampling.spread: 'even' when fitted"),
        ({"frames": 4}, "frames: 8 when fitted, 4 now"),
        ({"dim": 8}, "dim: 16 when fitted, 8 now"),
    ):
        made = {"description": store.description, "frames": 8, "dim": 16}
        made |= {"sampling": store.sampling} | change
        other = FeatureStore.create(tmp_path / message[:6], **made)
        other.append(ids[:4], torch.randn(4, other.frames, other.dim))
        with pytest.raises(InputError, match=message):
            probe.predict_store(other, ids[:4])
    moved = store.description | {"weights": "elsewhere"}
    same = StoreView(store, lambda x: x, moved)
    assert len(probe.predict_store(same, ids)) == 120, "where the weights came from is no matter"
    with pytest.raises(InputError, match="dim: 16 when fitted, 12 now.*fit a probe to this one"):
        probe.predict(np.zeros((2, 8, 12)))
    assert probe.predict(np.zeros((2, 8, 16))).shape == (2,)


def test_a_probe_without_a_block_is_refused():
    with pytest.raises(InputError, match="blocks is 0, it must be at least 1"):
        AttentiveProbe(blocks=0).fit(*make_tokens(8))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"epochs": 0}, "epochs is 0, it must be at least 1"),
        ({"queries": 0}, "queries is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"positions": "learned"}, "positions is 'learned'; choose none or sinusoid"),
        ({"device": "moon"}, "device 'moon' cannot be used here"),
        ({"learning_rate": float("nan")}, "learning_rate is nan, it must be above 0"),
        ({"learning_rate": 1e30, "min_steps": 20}, "loss .* lower learning_rate"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    x, y = make_tokens(8)
    with pytest.raises(InputError, match=message):
        clone(SMALL[1]).set_params(**settings).fit(x, y)


def test_tokens_that_cannot_be_read_are_refused(store):
    store, ids, labels = store
    x, y = make_tokens(8)
    probe = clone(SMALL[1])
    with pytest.raises(InputError, match=r"needs an array \(N, T, D\), got \(8, 16\)"):
        probe.fit(x[:, 0], y)
    x[3, 2, 1] = np.inf
    with pytest.raises(InputError, match="tokens of 1 clips are not finite, first row 3"):
        probe.fit(x, y)
    with pytest.raises(InputError, match="2 classes, all are"):
        probe.fit_store(store, ids[:2], ["open", "open"])
    with pytest.raises(KeyError, match="1 clips are not in the store, the first is 'lost'"):
        probe.fit_store(store, [*ids[:5], "lost"], [*labels[:5], "open"])


def test_a_view_changes_tokens_as_they_are_read(store):
    store, ids, _ = store
    view = TokenView(store, lambda x, ids: x.mean(1, keepdim=True))
    assert (view.frames, view.dim, view.ids) == (1, 16, store.ids)
    assert torch.equal(view.read(ids[:3]), store.read(ids[:3]).mean(1, keepdim=True))


MEMORY = """
import json, mmap, sys
sys.path.insert(0, sys.argv[1])
import token_probe_memory as benchmark

command = "--clips 20000 --held 2000 --dim 64 --classes 10 --batch-size 64 --min-steps 1"
streamed = benchmark.measure(benchmark.parser().parse_args(command.split()))
with benchmark.Growth() as held:
    block = mmap.mmap(-1, 39 * 2**20)
    for start in range(0, len(block), mmap.PAGESIZE):
        block[start] = 1
print(json.dumps({**streamed, "kept_mib": held.mib}))
"""


def test_memory_does_not_grow_with_the_clips():
    """Random numbers of 20,000 clips of 8 x 64: 39 MiB in float32, which an array would hold.

    In a process of its own: one that has freed memory before can hold more without growing.
    """
    folder = Path(__file__).parents[1] / "benchmarks"
    command = [sys.executable, "-c", MEMORY, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    streamed = json.loads(result.stdout)
    assert streamed["clips_read"] == 20000 + 2000 + 4096, "every clip, and a sample for the moments"
    assert streamed["growth_mib"] < 20
    assert streamed["kept_mib"] > 35, "what is kept is seen"


def test_the_learning_rate_rises_for_a_tenth_of_the_steps_and_falls_to_nothing():
    rates = [_rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and np.argmax(rates) in (9, 10)
    assert max(rates) > 0.95 and (np.diff(rates[10:]) < 0).all() and rates[-1] < 0.001
    assert _rate(0, 1) == 1, "a single step is made at the full rate"


def test_a_selected_probe_ranks_its_classes_as_its_model_does():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = rng.normal(size=(60, 4)) + np.eye(3, 4)[y]
    chosen = ridge_cv().fit(x, y)
    assert np.array_equal(chosen.decision_function(x), chosen.model_.decision_function(x))
    assert not hasattr(knn_cv(), "decision_function")  # neighbours vote, they have no margin
