"""Bases and codes on made-up features: what a code adds is found, and what is missing is named."""

import numpy as np
import pandas as pd
import pytest
import torch

from lift import bases
from lift.bases import (
    NEEDS_WEIGHTS,
    base_embeddings,
    base_options,
    combination_title,
    combined_probe,
    read_combinations,
    score_combinations,
)
from lift.classifiers import Selected
from lift.embedding import EmbeddingError
from lift.io import InputError, write_json
from lift.probes import PROBES
from lift.reproduction import Run
from lift.store import FeatureStore

PARAMETERS = {
    "seed": 0,
    "bootstrap": 50,
    "features": {"backbone": "own", "frames": 4, "weights": "random"},
    "real": {
        "benchmarks": ["synthetic", "synthetic-classes", "ucf101"],
        "methods": {"chiral": ["unit_slope"], "classes": ["unit_slope"]},
    },
    "bases": {"own": None, "blind": {"weights": "file"}, "absent": {}},
    "combinations": {"codes": ["unit_slope"], "probes": {"chiral": ["ridge_cv"]}},
}


def features(rng, clips, order):
    """Curves `(N, 4, 6)` whose first half names the group, and whose order the class if asked."""
    where = clips["group"].map({"door": 0, "lid": 1}).to_numpy()
    x = 3 * np.eye(2, 6)[where][:, None] + 0.3 * rng.normal(size=(len(clips), 4, 6))
    if order:
        way = 2 * clips["chiral_label"].to_numpy() - 1
        x[:, :, 3] += way[:, None] * np.linspace(-1, 1, 4)
    return torch.from_numpy(x).float()


@pytest.fixture
def run(tmp_path):
    """A run whose own features know the order, and a base whose features do not."""
    rng, folder = np.random.default_rng(0), tmp_path / "runs" / "made"
    rows = [
        (f"{group}-{side}-{split}-{n}", group, side, split)
        for group in ("door", "lid")
        for side in (0, 1)
        for split, count in (("train", 20), ("validation", 30))
        for n in range(count)
    ]
    clips = pd.DataFrame(rows, columns=["clip_id", "group", "chiral_label", "split"])
    clips = clips.assign(path="a.mp4", start=np.nan, end=np.nan)
    clips["label"] = clips["group"] + clips["chiral_label"].astype(str)
    (folder / "clips").mkdir(parents=True)
    for name in ("synthetic", "synthetic-classes"):
        clips.to_csv(folder / "clips" / f"{name}.csv", index=False)
    absent = {"ucf101": {"found": False, "note": "no such folder"}}
    write_json(folder / "clips" / "benchmarks.json", absent)
    for place, order in (("features/synthetic", True), ("bases/blind/synthetic", False)):
        store = FeatureStore.create(folder / place, {"name": place.split("/")[1]}, 4, 6)
        store.append(list(clips["clip_id"]), features(rng, clips, order))
    return Run("made", tmp_path, PARAMETERS)


def test_a_code_adds_the_order_to_a_base_that_has_none(run):
    score_combinations(run, progress=False)
    table = read_combinations(run)
    chiral = table[table["benchmark"] == "synthetic"].set_index(["base", "code"])
    assert (
        chiral.loc[("blind", ""), "value"] < 70 < 95 < chiral.loc[("blind", "unit_slope"), "value"]
    )
    gain = chiral.loc[("blind", "unit_slope")]
    assert gain["delta"] == pytest.approx(
        gain["value"] - chiral.loc[("blind", ""), "value"], abs=0.01
    )
    assert gain["delta_low"] > 0
    assert pd.isna(chiral.loc[("blind", ""), "delta"])
    classes = table[table["benchmark"] == "synthetic-classes"].set_index(["base", "code"])
    assert classes.loc[("blind", "unit_slope"), "delta_low"] > 0
    assert classes.loc[("own", ""), "classes"] == 4


def test_what_is_missing_is_named_and_keeps_its_rows(run):
    score_combinations(run, progress=False)
    table = read_combinations(run)
    absent = table[table["base"] == "absent"]
    assert len(absent) == 5  # base and code on two benchmarks, one row for the missing one
    lacking = absent[absent["benchmark"] != "ucf101"]
    assert (lacking["reason"] == NEEDS_WEIGHTS).all() and lacking["value"].isna().all()
    assert set(table.loc[table["benchmark"] == "ucf101", "reason"]) == {"no such folder"}


def test_the_own_backbone_has_the_options_of_the_run(run):
    found = base_options(run)
    assert found == {"own": {"weights": "random"}, "blind": {"weights": "file"}, "absent": {}}


def test_a_base_is_the_mean_over_time(run):
    table = base_embeddings(run, "synthetic", "blind")
    store = FeatureStore.open(run.folder / "bases" / "blind" / "synthetic")
    expected = store.read(list(table.index)).mean(1).numpy()
    assert np.allclose(table.to_numpy(), expected, atol=1e-3)  # the store holds float16
    with pytest.raises(EmbeddingError, match=NEEDS_WEIGHTS):
        base_embeddings(run, "synthetic", "absent")


def test_costs_are_those_of_all_encoders_that_a_row_needs(run):
    score_combinations(run, progress=False)
    costs = pd.DataFrame(
        {
            "backbone": ["own", "blind"],
            "parameters": [10, 100],
            "gflops": [1.0, 2.0],
            "clips_per_second": [2.0, 4.0],
        }
    )
    costs.to_csv(run.folder / "bases" / "costs.csv", index=False)
    table = read_combinations(run).drop_duplicates(["base", "code"]).set_index(["base", "code"])
    assert table.loc[("blind", ""), "parameters"] == 100
    assert table.loc[("blind", "unit_slope"), "parameters"] == 110
    assert table.loc[("blind", "unit_slope"), "clips_per_second"] == pytest.approx(1 / 0.75)
    assert table.loc[("own", "unit_slope"), "gflops"] == 1


@pytest.mark.parametrize("name", list(PROBES))
def test_every_probe_stands_behind_a_combination(name):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    x = np.hstack([rng.normal(size=(60, 3)), 1e-4 * (y[:, None] + 0.1 * rng.normal(size=(60, 1)))])
    probe = combined_probe([3, 1], name).fit(x, y)
    assert (probe.predict(x) == y).mean() > 0.9
    assert isinstance(probe, Selected) == isinstance(PROBES[name](), Selected)


def test_an_unknown_probe_and_the_title_of_a_row():
    with pytest.raises(InputError, match="no probe 'best'; choose one of ridge"):
        combined_probe([1], "best")
    assert combination_title("a", "") == "a"
    assert combination_title("a", "unit_slope") == "a ⊕ unit slope"


def test_token_probes_come_with_their_controls(run, monkeypatch):
    asked = []

    def probe(store, clips, name, task, control, **settings):
        asked.append((name, task, control))
        raise bases.ProbeError("not now")

    monkeypatch.setattr(bases, "probe_tokens", probe)
    parameters = {**PARAMETERS, "combinations": {"tokens": ["efficient"]}}
    score_combinations(Run("made", run.root, parameters), progress=False)
    controls = ["none", "order_free", "positions", "shuffled"]
    own = [("efficient", task, name) for task in ("chiral", "label") for name in controls]
    assert asked == own[:4] * 2 + own[4:] * 2  # two bases have features
    table = read_combinations(run)
    assert set(table.loc[table["control"] != "", "reason"]) == {"not now", NEEDS_WEIGHTS}
