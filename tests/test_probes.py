"""Probes: the paper's protocol, honest intervals, paired tests, and what is refused or left out by name."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import rankdata, wilcoxon
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from lift import probes
from lift.classifiers import EfficientProbe, TokenView, ridge_cv, select
from lift.probes import (
    CONTROLS,
    PROBES,
    TOKEN_PROBES,
    ProbeError,
    compare_classes,
    compare_groups,
    compare_many,
    probe_classes,
    probe_groups,
    probe_tokens,
)
from lift.store import FeatureStore


def make_groups(groups=4, train=12, validation=10, dim=6, signal=1.0, noise=1.0, seed=0):
    """A chiral clip table and embeddings with the sign in the first dimension."""
    generator = np.random.default_rng(seed)
    rows = [
        {"group": f"g{g}", "split": split, "chiral_label": n % 2}
        for g in range(groups)
        for split, count in (("train", train), ("validation", validation))
        for n in range(count)
    ]
    clips = pd.DataFrame(rows).assign(clip_id=[f"c{n}" for n in range(len(rows))])
    x = noise * generator.normal(size=(len(rows), dim))
    x[:, 0] += signal * (2 * clips["chiral_label"] - 1)
    return clips, pd.DataFrame(
        x.astype(np.float32), index=pd.Index(clips["clip_id"], name="clip_id")
    )


def test_the_protocol_is_ridge_classifier_with_its_defaults_per_group():
    clips, embeddings = make_groups()
    results = probe_groups(embeddings, clips)
    scores = []
    for _, rows in clips.groupby("group"):
        train, validation = rows[rows["split"] == "train"], rows[rows["split"] == "validation"]
        classifier = RidgeClassifier().fit(
            embeddings.loc[train["clip_id"]].astype(float), train["chiral_label"]
        )
        scores.append(
            100
            * classifier.score(
                embeddings.loc[validation["clip_id"]].astype(float), validation["chiral_label"]
            )
        )
    assert results.table["accuracy"].tolist() == pytest.approx(scores)
    assert results.summary()["mean"] == pytest.approx(np.mean(scores), abs=1e-3)


def test_the_mean_weighs_every_group_the_same():
    clips, embeddings = make_groups(groups=2, signal=0.0, noise=0.0)
    strong = clips["group"] == "g0"
    embeddings.loc[strong.to_numpy(), 0] = (2.0 * clips.loc[strong, "chiral_label"] - 1).to_numpy()
    many = clips[(clips["group"] == "g0") & (clips["split"] == "validation")]
    drop = many["clip_id"].iloc[2:]
    results = probe_groups(embeddings, clips[~clips["clip_id"].isin(drop)])
    assert results.table["n_test"].tolist() == [2, 10]
    assert results.summary()["mean"] == pytest.approx((100 + 50) / 2)


@pytest.mark.parametrize("probe", [*PROBES, KNeighborsClassifier(3)], ids=str)
def test_separable_is_100_and_permuted_labels_are_at_chance(probe):
    clips, embeddings = make_groups(groups=2, signal=10.0, train=60)
    assert probe_groups(embeddings, clips, probe).summary()["mean"] == 100
    generator = np.random.default_rng(0)
    # settings are chosen anew for each group: few groups, each of many clips
    chosen = probe in ("ridge_cv", "logistic_cv", "knn", "mlp")
    groups, validation = (4, 100) if chosen else (20, 20)
    clips, embeddings = make_groups(groups, signal=10.0, validation=validation)
    shuffled = clips.groupby(["group", "split"])["chiral_label"].transform(
        lambda signs: generator.permutation(signs.to_numpy())
    )
    summary = probe_groups(embeddings, clips.assign(chiral_label=shuffled), probe).summary()
    assert 40 < summary["mean"] < 60


def test_balanced_accuracy_is_not_fooled_by_an_uneven_group():
    clips, embeddings = make_groups(groups=1, signal=0.0, noise=0.0, train=12, validation=10)
    keep = (clips["chiral_label"] == 1) | clips["clip_id"].isin(
        clips.groupby("split")["clip_id"].first()
    )
    row = probe_groups(embeddings, clips[keep]).table.iloc[0]
    assert row["accuracy"] == pytest.approx(100 * 5 / 6)
    assert row["balanced_accuracy"] == pytest.approx(50)


def test_the_order_of_the_tables_and_the_call_do_not_matter():
    clips, embeddings = make_groups()
    first = probe_groups(embeddings, clips, seed=3)
    again = probe_groups(embeddings.iloc[::-1], clips, seed=3)
    assert first.summary() == again.summary()
    pd.testing.assert_frame_equal(first.table, again.table)
    noisy, x = make_groups(signal=0.3)
    third, fourth = (probe_groups(x, noisy, seed=seed).samples for seed in (3, 4))
    assert not np.array_equal(third, fourth)


def test_groups_that_cannot_be_scored_are_named_and_never_scored():
    clips, embeddings = make_groups(groups=6)
    group, train, sign = clips["group"], clips["split"] == "train", clips["chiral_label"] == 1
    gone = (group == "g0") & train & sign  # one class missing in training
    gone |= (group == "g1") & ~train & ~sign  # one class missing in validation
    gone |= (group == "g2") & train  # no training at all
    gone |= (group == "g3") & ~train  # no validation at all
    gone |= (
        (group == "g4")
        & train
        & (clips["clip_id"] != clips.loc[(group == "g4") & train, "clip_id"].iloc[0])
    )
    results = probe_groups(embeddings, clips[~gone])
    assert results.table["group"].tolist() == ["g5"] and set(results.predictions["group"]) == {"g5"}
    assert results.excluded == {
        "g0": "training clips of label 0 only",
        "g1": "test clips of label 1 only",
        "g2": "no training clips",
        "g3": "no test clips",
        "g4": "fewer than 2 training clips",
    }
    assert "left out: g2: no training clips" in repr(results)
    with pytest.raises(
        ProbeError, match="no group can be scored: g0: training clips of label 0 only"
    ):
        probe_groups(embeddings, clips[~gone & (group == "g0")])


def test_clips_without_an_embedding_are_named_or_refused():
    clips, embeddings = make_groups()
    results = probe_groups(embeddings.drop(index=["c3", "c50"]), clips)
    assert results.missing == ["c3", "c50"] and results.summary()["missing_clips"] == 2
    assert "2 clips without an embedding: c3, c50" in repr(results)
    with pytest.raises(ProbeError, match="2 clips of the table have no embedding: c3, c50"):
        probe_groups(embeddings.drop(index=["c3", "c50"]), clips, missing="raise")
    with pytest.raises(ProbeError, match="no clip of the table has an embedding"):
        probe_groups(embeddings.set_axis([f"other-{n}" for n in range(len(embeddings))]), clips)
    with pytest.raises(ProbeError, match="missing must be"):
        probe_groups(embeddings, clips, missing="ignore")


def test_bad_tables_are_refused_by_name():
    clips, embeddings = make_groups()
    holed = embeddings.copy()
    holed.loc["c7", 2] = np.nan
    with pytest.raises(ProbeError, match="NaN or infinite values: c7"):
        probe_groups(holed, clips)
    with pytest.raises(ProbeError, match="embedded twice: c0"):
        probe_groups(pd.concat([embeddings, embeddings.iloc[:1]]), clips)
    with pytest.raises(ProbeError, match="the clip table has clips twice; .*: c0"):
        probe_groups(embeddings, pd.concat([clips, clips.iloc[:1]]))
    with pytest.raises(ProbeError, match="lacks the column group, chiral_label"):
        probe_groups(embeddings, clips.drop(columns=["group", "chiral_label"]))
    with pytest.raises(ProbeError, match="chiral_label other than 0 or 1; .*: c0"):
        probe_groups(embeddings, clips.assign(chiral_label=[2, *clips["chiral_label"][1:]]))
    with pytest.raises(ProbeError, match="no clip of split 'test'"):
        probe_groups(embeddings, clips[clips["split"] == "train"])
    with pytest.raises(ProbeError, match="no probe 'forest'; choose one of ridge"):
        probe_groups(embeddings, clips, "forest")


def test_clips_outside_the_protocol_are_ignored():
    clips, embeddings = make_groups()
    clips["split"] = clips["split"].replace("validation", "test")
    more = clips.assign(clip_id="x" + clips["clip_id"], split="validation")
    plain = clips.iloc[:5].assign(
        clip_id=[f"y{n}" for n in range(5)], group=None, chiral_label=np.nan
    )
    results = probe_groups(embeddings, pd.concat([clips, more, plain], ignore_index=True))
    assert results.missing == [] and results.summary() == probe_groups(embeddings, clips).summary()


def test_a_group_is_fitted_once_whatever_the_bootstrap():
    fits = []

    class Counted(RidgeClassifier):
        def fit(self, x, labels):
            fits.append(x.shape)
            return super().fit(x, labels)

    clips, embeddings = make_groups(groups=3)
    probe_groups(embeddings, clips, Counted(), bootstrap=500)
    assert fits == [(12, 6)] * 3


def test_the_interval_covers_the_truth():
    """Validation sets of uneven groups whose true accuracies are known: about 95 % of intervals hold the true mean."""
    generator = np.random.default_rng(0)
    sizes = [40, 20, 12, 8, 6, 5, 4, 4]
    trials, covered = 60, 0
    for trial in range(trials):
        truth = generator.uniform(0.55, 0.9, len(sizes))
        results = answered(
            [generator.random(n) < p for n, p in zip(sizes, truth, strict=True)],
            bootstrap=300,
            seed=trial,
        )
        summary = results.summary()
        covered += summary["low"] <= 100 * truth.mean() <= summary["high"]
    assert 0.85 <= covered / trials <= 0.99


class SignOfFirst(ClassifierMixin, BaseEstimator):
    """A probe that needs no training."""

    def fit(self, x, y):
        return self

    def predict(self, x):
        return (x[:, 0] > 0).astype(int)


def answered(correct, bootstrap=200, seed=0):
    """Results whose answers are right or wrong as asked."""
    clips, embeddings = [], []
    for g, right in enumerate(correct):
        sign = np.arange(len(right)) % 2
        clips.append(
            pd.DataFrame({"group": f"g{g:02d}", "split": "validation", "chiral_label": sign})
        )
        clips.append(pd.DataFrame({"group": f"g{g:02d}", "split": "train", "chiral_label": [0, 1]}))
        embeddings += [np.where(right, 2 * sign - 1, 1 - 2 * sign), np.array([-1, 1])]
    table = pd.concat(clips, ignore_index=True)
    table["clip_id"] = [f"c{n}" for n in range(len(table))]
    return probe_groups(
        pd.DataFrame(np.concatenate(embeddings), index=table["clip_id"]),
        table,
        SignOfFirst(),
        bootstrap,
        seed,
    )


def test_a_perfect_small_group_is_not_said_to_be_certain():
    results = answered([np.ones(6, bool), np.array([True, False] * 3)])
    assert results.table["accuracy"].tolist() == [100, 50]
    assert 50 < results.table["low"][0] < 70 and results.table["high"][0] == pytest.approx(100)


def test_a_difference_is_found_and_none_is_not_made_up():
    generator = np.random.default_rng(0)
    better, worse = (answered([generator.random(30) < p for _ in range(10)]) for p in (0.9, 0.65))
    found = compare_groups(better, worse)
    assert found["difference"] == pytest.approx(
        better.summary()["mean"] - worse.summary()["mean"], abs=2e-3
    )
    assert found["low"] > 0
    assert max(found["p_value"], found["p_value_groups"], found["p_value_mcnemar"]) < 0.01
    assert compare_groups(worse, better)["difference"] == -found["difference"]
    same = compare_groups(better, better)
    assert same["difference"] == 0
    assert same["p_value"] == same["p_value_groups"] == same["p_value_mcnemar"] == 1
    p_values = []
    for _ in range(20):
        one, other = (
            answered([generator.random(20) < 0.7 for _ in range(7)], bootstrap=10) for _ in range(2)
        )
        p_values.append(compare_groups(one, other, bootstrap=300)["p_value"])
    assert np.mean(np.array(p_values) < 0.05) < 0.2 and np.mean(p_values) > 0.3


def test_only_the_same_clips_can_be_compared():
    clips, embeddings = make_groups()
    whole = probe_groups(embeddings, clips)
    with pytest.raises(ProbeError, match="groups scored in one of the two results only: g3"):
        compare_groups(whole, probe_groups(embeddings, clips[clips["group"] != "g3"]))
    lone = clips.loc[clips["split"] == "validation", "clip_id"].iloc[0]
    with pytest.raises(ProbeError, match=f"clips scored in one of the two results only: {lone}"):
        compare_groups(whole, probe_groups(embeddings.drop(index=lone), clips))


def test_several_comparisons_are_corrected_as_statsmodels_does():
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    clips, _ = make_groups()
    results = {
        f"signal {signal}": probe_groups(make_groups(signal=signal)[1], clips)
        for signal in (0.0, 0.3, 0.6, 2.0)
    }
    table = compare_many(results, "signal 2.0")
    assert table["method"].tolist() == ["signal 0.0", "signal 0.3", "signal 0.6"]
    assert table["p_value_holm"].tolist() == pytest.approx(
        multipletests(table["p_value"], method="holm")[1]
    )
    with pytest.raises(ProbeError, match="comparing with 'lift'"):
        compare_many(results, "lift")


def test_results_are_saved_whole(tmp_path):
    clips, embeddings = make_groups()
    results = probe_groups(embeddings.drop(index="c3"), clips)
    results.save(tmp_path / "new")
    expected = ["groups.csv", "predictions.csv", "summary.json"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == expected
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert summary["mean"] == results.summary()["mean"]
    assert summary["missing"] == ["c3"]
    assert summary["probe"] == "ridge"
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new" / "groups.csv"), results.table)
    assert results.to_frame(model="LiFT").columns[:2].tolist() == ["model", "group"]


def make_classes(classes=8, clips=400, dim=20, offset=1000.0, seed=0):
    generator = np.random.default_rng(seed)
    label = generator.integers(classes, size=clips)
    x = offset + generator.normal(size=(classes, dim))[label] + generator.normal(size=(clips, dim))
    ids = [f"c{n}" for n in range(clips)]
    split = np.where(np.arange(clips) % 4 == 3, "validation", "train")
    table = pd.DataFrame({"clip_id": ids, "split": split, "label": [f"class {n}" for n in label]})
    return table, pd.DataFrame(x.astype(np.float32), index=ids)


@pytest.mark.parametrize("classes, clips, dim", [(2, 200, 10), (8, 400, 20), (6, 60, 90)])
@pytest.mark.parametrize("chunk", [None, 7])
def test_the_streamed_ridge_is_scikit_learns(classes, clips, dim, chunk):
    table, embeddings = make_classes(classes, clips, dim)
    starts = range(0, clips, chunk or clips)
    chunks = (embeddings[start : start + chunk] for start in starts)
    parts = embeddings if chunk is None else chunks
    results = probe_classes(parts, table)
    train, validation = table[table["split"] == "train"], table[table["split"] == "validation"]
    reference = RidgeClassifier().fit(
        embeddings.loc[train["clip_id"]].astype(float), train["label"]
    )
    scores = reference.decision_function(embeddings.loc[validation["clip_id"]].astype(float))
    answers = results.predictions.set_index("clip_id").loc[validation["clip_id"]]
    assert (
        answers["predicted"].tolist()
        == reference.predict(embeddings.loc[validation["clip_id"]].astype(float)).tolist()
    )
    assert results.summary()["top1"] == pytest.approx(
        100 * (answers["predicted"] == answers["label"]).mean(), abs=1e-3
    )
    if classes >= 6:
        own = scores[
            np.arange(len(scores)), np.searchsorted(reference.classes_, validation["label"])
        ]
        top5 = ((scores > own[:, None]).sum(1) < 5).mean()
        assert results.summary()["top5"] == pytest.approx(100 * top5, abs=1e-3)
    else:
        assert "top5" not in results.summary()


def test_classes_name_what_is_missing_and_unseen(tmp_path):
    table, embeddings = make_classes()
    table.loc[table["split"] == "validation", "label"] = [
        "new",
        *table.loc[table["split"] == "validation", "label"][1:],
    ]
    results = probe_classes(embeddings.drop(index=["c0", "c3"]), table)
    assert results.missing == ["c0", "c3"] and results.unseen == [] and results.n_train == 299
    results = probe_classes(embeddings, table)
    assert results.unseen == ["new"]
    assert results.predictions.set_index("clip_id").loc["c3", "rank"] == 0, (
        "a label without training counts as wrong"
    )
    results.save(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["unseen"] == ["new"]
    with pytest.raises(ProbeError, match="embedded twice: c1"):
        probe_classes([embeddings[:2], embeddings[1:]], table)
    with pytest.raises(ProbeError, match="2 clips of the table have no embedding"):
        probe_classes(embeddings.drop(index=["c0", "c3"]), table, missing="raise")
    with pytest.raises(ProbeError, match="training clips of 2 classes"):
        probe_classes(embeddings, table[table["label"].isin(["class 1"])])


def test_equal_scores_are_no_success():
    """All clips are the same: whatever the probe answers, it is right on one class in four, not on all of them."""
    ids = [
        f"{split}-{label}-{n}"
        for split in ("train", "validation")
        for label in "abcd"
        for n in range(3)
    ]
    clips = pd.DataFrame(
        {
            "clip_id": ids,
            "split": [i.split("-")[0] for i in ids],
            "label": [i.split("-")[1] for i in ids],
        }
    )
    results = probe_classes(pd.DataFrame(1.0, index=ids, columns=range(3)), clips)
    assert results.summary()["top1"] == 25
    assert (
        (results.predictions["rank"] == 1)
        == (results.predictions["label"] == results.predictions["predicted"])
    ).all()


def exact_signed_rank(differences):
    """The two-sided p-value over all ways in which the signs could have fallen."""
    kept = differences[differences != 0]
    ranks = rankdata(np.abs(kept))
    count = len(kept)
    signs = np.array(list(product([0, 1], repeat=count))).reshape(2**count, count)
    distance = np.abs(signs @ ranks - ranks.sum() / 2)
    return (distance >= abs(ranks[kept > 0].sum() - ranks.sum() / 2) - 1e-9).mean()


@pytest.mark.parametrize("groups", [1, 2, 6, 9, 13])
def test_the_signed_rank_test_of_few_groups_is_exact_with_ties_and_zeros(groups):
    for seed in range(4):
        differences = np.random.default_rng(seed).integers(-3, 4, groups) * 12.5
        found = probes._signed_rank(differences, seed)
        assert found == pytest.approx(exact_signed_rank(differences))
        assert found == pytest.approx(probes._signed_rank(-differences, seed + 1)), "two-sided"


def test_the_signed_rank_test_of_many_groups_is_drawn_by_seed_near_the_asymptotic_one():
    differences = np.random.default_rng(0).normal(0.3, 1, 40)
    first, again, other = (probes._signed_rank(differences, seed) for seed in (0, 0, 1))
    assert first == again != other
    near = pytest.approx(wilcoxon(differences, method="asymptotic").pvalue, rel=0.2)
    assert first == near and other == near
    assert probes._signed_rank(differences + 2, 0) < first / 10
    assert probes._signed_rank(differences - np.median(differences), 0) > 0.3


QUICK = EfficientProbe(queries=4, learning_rate=1e-2, epochs=1, min_steps=150)


def make_doors(path, groups=2, train=80, validation=60, labels=None):
    """A chiral table, and a store of tokens in which only the order of the frames tells the classes."""
    clips, _ = make_groups(groups, train, validation)
    generator = np.random.default_rng(1)
    sign = 2 * clips["chiral_label"].to_numpy()[:, None, None] - 1
    x = generator.normal(size=(len(clips), 8, 16))
    x[:, :, :4] += sign * np.linspace(-2, 2, 8)[:, None]
    store = FeatureStore.create(path / "store", {"name": "made up"}, 8, 16)
    store.append(clips["clip_id"].tolist(), torch.from_numpy(x).float())
    return clips.assign(label=np.where(clips["chiral_label"], "open", "close")), store


@pytest.mark.parametrize("task", ["chiral", "label"])
def test_the_controls_tell_who_knows_the_order(task, tmp_path):
    clips, store = make_doors(tmp_path)
    found = {name: probe_tokens(store, clips, QUICK, task, name) for name in CONTROLS}
    key = "mean" if task == "chiral" else "top1"
    score = {name: results.summary()[key] for name, results in found.items()}
    assert score["positions"] > 80
    assert all(35 < score[name] < 65 for name in ("none", "order_free", "shuffled")), score
    if task == "chiral":
        assert compare_many(found, "none")["method"].tolist() == list(CONTROLS[1:])


def test_order_free_is_the_probe_on_the_mean_and_shuffled_is_the_probe_of_positions(tmp_path):
    clips, store = make_doors(tmp_path, groups=1)
    train, held = (clips.loc[clips["split"] == side] for side in ("train", "validation"))
    x, new = (store.read(part["clip_id"]) for part in (train, held))
    labels = train["chiral_label"]
    mean = clone(QUICK).fit(x.mean(1, keepdim=True), labels).predict(new.mean(1, keepdim=True))
    results = probe_tokens(store, clips, QUICK, control="order_free")
    assert (results.predictions["predicted"] == mean).all()
    told = EfficientProbe(**QUICK.get_params() | {"positions": "sinusoid"}).fit(x, labels)
    straight = probe_tokens(store, clips, QUICK, control="positions").predictions["predicted"]
    assert (straight == told.predict(new)).all()
    shuffle = probes._shuffle_frames(0)
    shuffled = shuffle(new, held["clip_id"].tolist())
    results = probe_tokens(store, clips, QUICK, control="shuffled").predictions["predicted"]
    assert (results == told.predict(shuffled)).all()
    assert torch.equal(shuffled.sort(1).values, new.sort(1).values), "the same frames"
    one = shuffle(new[5:6], held["clip_id"].tolist()[5:6])
    assert torch.equal(one[0], shuffled[5]), "whatever the batch"
    assert not torch.equal(probes._shuffle_frames(1)(new, held["clip_id"].tolist()), shuffled)


def test_tokens_follow_the_protocol_of_tables(tmp_path):
    """Groups without a class are left out by name, missing clips are named, a probe is fitted per group."""
    clips, store = make_doors(tmp_path, groups=3, train=20, validation=10)
    lost = clips["clip_id"].iloc[0]
    store.withdraw([lost])
    one_class = clips[(clips["group"] != "g1") | (clips["chiral_label"] == 1)]
    results = probe_tokens(store, one_class, QUICK)
    assert results.missing == [lost] and set(results.table["group"]) == {"g0", "g2"}
    assert results.excluded == {"g1": "training clips of label 1 only"}
    assert results.table["n_train"].tolist() == [19, 20]
    with pytest.raises(ProbeError, match=f"1 clips of the table have no embedding: {lost}"):
        probe_tokens(store, clips, QUICK, missing="raise")


def test_many_classes_of_tokens_rank_the_true_one(tmp_path):
    generator = np.random.default_rng(0)
    y = np.arange(320) % 8
    means = 2 * generator.normal(size=(8, 1, 16))
    x = means[y] + generator.normal(size=(320, 4, 16))
    ids = [f"c{n}" for n in range(320)]
    split = np.where(np.arange(320) < 240, "train", "validation")
    clips = pd.DataFrame({"clip_id": ids, "split": split, "label": [f"class {n}" for n in y]})
    clips.loc[319, "label"] = "new"
    store = FeatureStore.create(tmp_path / "store", {"name": "made up"}, 4, 16)
    store.append(ids, torch.from_numpy(x).float())
    results = probe_tokens(store, clips, QUICK, task="label")
    assert results.summary()["top1"] > 90 and results.summary()["top5"] >= results.summary()["top1"]
    assert results.unseen == ["new"] and results.n_train == 240
    assert results.predictions.set_index("clip_id").loc["c319", "rank"] == 0
    train = clips["split"] == "train"
    fitted = clone(QUICK).fit_store(store, clips.loc[train, "clip_id"], clips.loc[train, "label"])
    held = clips.loc[~train, "clip_id"]
    assert results.predictions["predicted"].tolist() == fitted.predict_store(store, held).tolist()


def test_a_probe_is_chosen_with_the_clips_of_a_video_together(tmp_path):
    clips, store = make_doors(tmp_path, groups=1, train=20, validation=4)
    asked = []

    class Spy(EfficientProbe):
        def fit_store(self, store, ids, labels):
            asked.append(list(ids))
            return super().fit_store(store, ids, labels)

    video = [f"v{n // 4}" for n in range(len(clips))]
    probe = select(Spy(queries=4, epochs=1, min_steps=2), {"learning_rate": [1e-3, 1e-2]})
    probe_tokens(store, clips.assign(video=video), probe)
    of = dict(zip(clips["clip_id"], video, strict=True))
    train = clips.loc[clips["split"] == "train", "clip_id"].tolist()
    assert len(asked) == 3 and asked[-1] == train and asked[0] == asked[1]
    held = set(train) - set(asked[0])
    assert held and not {of[i] for i in held} & {of[i] for i in asked[0]}
    table, x = make_groups(groups=1, train=30)
    alone = probes._videos(ridge_cv(), table.assign(path="one file"))
    assert set(alone["groups"]) == {"one file"} and probes._videos(ridge_cv(), table) == {}
    same = probe_groups(x, table.assign(path="one file"), "ridge_cv")
    plain = probe_groups(x, table, "ridge_standardised")
    assert same.predictions["predicted"].tolist() == plain.predictions["predicted"].tolist(), (
        "one video: nothing can be held out"
    )


def test_the_probes_of_tokens_have_names_and_choose_their_learning_rate():
    assert set(TOKEN_PROBES) == {"attentive", "efficient"}
    for name, make in TOKEN_PROBES.items():
        probe = make()
        assert name in type(probe.estimator).__name__.lower() and "learning_rate" in probe.grid


def test_bad_questions_about_tokens_are_refused(tmp_path):
    clips, store = make_doors(tmp_path, train=4, validation=4)
    for settings, message in (
        ({"probe": "ridge"}, "no probe 'ridge'; choose one of attentive, efficient"),
        ({"probe": RidgeClassifier()}, "reads no tokens; give a table of embeddings"),
        ({"task": "colour"}, "no task 'colour'; choose chiral or label"),
        ({"control": "reversed"}, "no control 'reversed'; choose one of none, order_free"),
        ({"missing": "ignore"}, "missing must be"),
    ):
        with pytest.raises(ProbeError, match=message):
            probe_tokens(store, clips, **{"probe": QUICK} | settings)
    with pytest.raises(ProbeError, match="lacks the column label"):
        probe_tokens(store, clips.drop(columns="label"), QUICK, task="label")
    with pytest.raises(ProbeError, match="no clip of the table has an embedding"):
        probe_tokens(store, clips.assign(clip_id="x" + clips["clip_id"]), QUICK)
    with pytest.raises(ProbeError, match="1 classes and 8 test clips have features"):
        probe_tokens(store, clips.assign(label="same"), QUICK, task="label")
    view = TokenView(store, lambda x, ids: x[:, :3])
    assert len(probe_tokens(view, clips, QUICK).table) == 2, "a part of the frames"


def many_classes(rng, dims=6, classes=7):
    label = rng.integers(classes, size=240)
    x = rng.normal(size=(classes, dims))[label] + 0.7 * rng.normal(size=(240, dims))
    clips = pd.DataFrame(
        {
            "clip_id": [f"c{n}" for n in range(240)],
            "split": ["train"] * 140 + ["validation"] * 100,
            "label": [f"class {n}" for n in label],
        }
    )
    return pd.DataFrame(x, index=clips["clip_id"]), clips


def test_classes_by_any_classifier_are_those_of_scikit_learn():
    table, clips = many_classes(np.random.default_rng(0))
    forest = RandomForestClassifier(20, random_state=0)
    found = probe_classes(table, clips, bootstrap=10, probe=forest)
    reference = clone(forest).fit(table.to_numpy()[:140], clips["label"][:140])
    scores, truth = reference.predict_proba(table.to_numpy()[140:]), clips["label"][140:]
    assert list(found.predictions["predicted"]) == list(reference.predict(table.to_numpy()[140:]))
    expected = top_k_accuracy_score(truth, scores, k=5, labels=reference.classes_)
    ties = abs(found.summary()["top5"] - 100 * expected)
    assert ties <= 2, "only ties at the fifth place may differ"


def test_classes_by_name_are_those_of_the_ridge_that_streams():
    table, clips = many_classes(np.random.default_rng(1))
    streamed = probe_classes(table, clips, bootstrap=10).predictions
    held = probe_classes(table, clips, bootstrap=10, probe=RidgeClassifier()).predictions
    pd.testing.assert_frame_equal(streamed, held, check_dtype=False)
    with pytest.raises(ProbeError, match="no probe 'best'"):
        probe_classes(table, clips, probe="best")


def test_two_tables_of_classes_are_compared_by_clip():
    table, clips = many_classes(np.random.default_rng(2))
    whole, half = (probe_classes(part, clips, bootstrap=10) for part in (table, table[[0, 1]]))
    found = compare_classes(whole, half, bootstrap=2000)
    accuracy = whole.summary()["top1"] - half.summary()["top1"]
    assert found["difference"] == pytest.approx(accuracy, abs=1e-3)
    gain = (whole.predictions["rank"] == 1).astype(int) - (half.predictions["rank"] == 1).astype(
        int
    )
    error = 100 * gain.std() / np.sqrt(len(gain))
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert compare_classes(whole, whole)["p_value"] == 1.0
    fewer = probe_classes(table.iloc[:-1], clips, bootstrap=10)
    with pytest.raises(ProbeError, match="different clips"):
        compare_classes(whole, fewer)
