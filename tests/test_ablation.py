"""Ablations: intervals over seeds and clips, runs that are found again, tables that say how many seeds."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

from lift.ablation import (
    CODES,
    MEASURES,
    Study,
    Variant,
    comparison_table,
    measure,
    save_summary,
    study_clips,
    thin_store,
    without_zeros,
)
from lift.model import LiFT, LiFTConfig
from lift.store import FeatureStore

SETTINGS = {
    "model": {"latent_dim": 8, "depth": 1, "heads": 2, "dropout": 0.0},
    "training": {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3},
    "seeds": 2,
    "bootstrap": 100,
}


def make_clips(per_sign: int = 6) -> pd.DataFrame:
    rows = [
        {"clip_id": f"{split}-{group}-{sign}-{n}", "split": split, "group": group, "chiral_label": sign}
        for split in ("train", "validation") for group in ("a", "b") for sign in (0, 1) for n in range(per_sign)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def make_store(path, clips: pd.DataFrame, seed: int = 0, name: str = "made up") -> FeatureStore:
    features = torch.randn(len(clips), 8, 10, generator=torch.Generator().manual_seed(seed))
    store = FeatureStore.create(path, {"name": name}, frames=8, dim=10)
    store.append(list(clips["clip_id"]), features)
    return store


@pytest.fixture
def study(tmp_path) -> Study:
    clips = make_clips()
    return Study(clips, make_store(tmp_path / "store", clips), tmp_path / "runs", SETTINGS)


def models(study: Study) -> dict:
    return {path: path.stat().st_mtime_ns for path in study.folder.glob("*/model.safetensors")}


def test_measure_scores_every_validation_clip_and_knows_a_perfect_line(study):
    model = LiFT(LiFTConfig(feature_dim=10, **SETTINGS["model"])).eval()
    table = measure(model, study.store, study.clips)
    validation = study.clips[study.clips["split"] == "validation"]
    assert set(table.index) == set(validation["clip_id"]) and set(table[list(CODES)].to_numpy().ravel()) <= {0, 100}
    assert (table["latent_curvature"] == 0).all(), "a line"
    x = study.store.read(list(table.index))
    centre, _ = study.store.statistics(study.clips.loc[study.clips["split"] == "train", "clip_id"])
    error = ((model(x).reconstruction - x).square().mean((1, 2)) / (x - centre).square().mean()).detach().numpy()
    np.testing.assert_allclose(table["reconstruction_error"], error, rtol=1e-4)


def test_predicting_the_training_mean_has_a_reconstruction_error_of_one(study):
    model = LiFT(LiFTConfig(feature_dim=10, **SETTINGS["model"])).eval()
    ids = list(study.clips.loc[study.clips["split"] == "train", "clip_id"])
    model.set_feature_statistics(*study.store.statistics(ids))
    for weight in model.decoder.parameters():
        torch.nn.init.zeros_(weight)  # decodes to 0, which is the mean of the features
    assert measure(model, study.store, study.clips)["reconstruction_error"].mean() == pytest.approx(1, abs=1e-5)


def test_a_finished_run_is_not_repeated_and_is_the_same_in_another_notebook(study):
    first = study.summarise([Variant("depth", "1")])
    written = models(study)
    again = dataclasses.replace(study, hashes={}).summarise([Variant("loss", "all", {"depth": 1}, {"orthogonality": 0.1})])
    assert len(written) == 2 and models(study) == written, "the recipe is the same, whatever names it"
    columns = ["measure", "mean", "low", "high"]
    pd.testing.assert_frame_equal(first[columns], again[columns])
    assert not list(study.folder.glob("*/checkpoints"))


def test_other_features_make_another_run(study, tmp_path):
    study.measurements(Variant("a", "b"), 0)
    other = dataclasses.replace(study, store=make_store(tmp_path / "other", study.clips, seed=1), hashes={})
    other.measurements(Variant("a", "b"), 0)
    assert len(models(study)) == 2


def test_two_notebooks_that_want_the_same_run_train_it_once(study):
    with ThreadPoolExecutor(2) as notebooks:
        both = list(notebooks.map(lambda level: study.measurements(Variant("depth", level), 0), ("1", "one")))
    assert both[0].equals(both[1]) and len(models(study)) == 1


def test_a_killed_run_goes_on(study, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lift.ablation.measure", killed)
        with pytest.raises(KeyboardInterrupt):
            study.measurements(Variant("a", "b"), 0)
    folder = next(study.folder.iterdir())
    assert not (folder / "measurements.csv").exists() and (folder / "checkpoints" / "last.ckpt").exists()
    assert len(study.measurements(Variant("a", "b"), 0)) == 24 and len(list(study.folder.iterdir())) == 1


def test_thin_stores_hold_the_first_and_the_last_frame(study, tmp_path):
    ids = study.store.ids[:5]
    thin = thin_store(study.store, ids, 4, tmp_path / "thin")
    whole = study.store.read(ids)
    assert thin.read(ids).shape == (5, 4, 10)
    assert torch.equal(thin.read(ids)[:, [0, -1]], whole[:, [0, -1]])
    assert len(thin_store(study.store, study.store.ids[:9], 4, tmp_path / "thin")) == 9, "it goes on where it stopped"
    assert study.features(Variant("frames", "8", frames=8)) is study.store


def test_variants_on_another_backbone_read_its_store(study, tmp_path):
    make_store(tmp_path / "other", study.clips, seed=2, name="another")
    study = dataclasses.replace(study, others={"another": tmp_path / "other", "made up": tmp_path / "nowhere"})
    assert study.features(Variant("backbone", "made up", backbone="made up")) is study.store
    assert study.features(Variant("backbone", "another", backbone="another")).description["name"] == "another"


def test_sizes_of_the_codes_and_the_number_of_seeds_are_in_the_table(study, tmp_path):
    variants = [Variant("code", code, {"degree": 2}, code=code) for code in CODES]
    summary = study.summarise(variants)
    assert list(summary["dimension"].unique()) == [24, 8, 16]
    assert list(summary["measure"].unique()) == list(MEASURES.values())
    table = comparison_table(summary)
    assert list(table["seeds"]) == ["2 seeds"] * 3 and "2 seeds" in study.caption
    save_summary(summary, tmp_path, "A caption.")
    assert {path.name for path in tmp_path.glob("ablation.*")} == {f"ablation.{kind}" for kind in ("md", "csv", "tex", "json")}


def test_a_number_from_one_seed_is_marked_so(study):
    single = dataclasses.replace(study, settings={**SETTINGS, "seeds": 1})
    summary = single.summarise([Variant("path", "line")])
    assert list(comparison_table(summary)["seeds"]) == ["one seed"] and "one seed" in single.caption
    assert MEASURES["latent_curvature"] not in set(without_zeros(summary)["measure"])


def test_the_study_takes_the_first_clips_of_each_sign():
    clips = study_clips(make_clips(), 2, 5)
    assert len(clips[clips["split"] == "train"]) == 8 and len(clips[clips["split"] == "validation"]) == 20
    assert "train-a-0-0" in set(clips["clip_id"]) and "train-a-0-2" not in set(clips["clip_id"])
