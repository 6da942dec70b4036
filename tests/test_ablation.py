"""Ablations: variants that are trained once per seed, tables that say how many seeds."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from lift.ablation import (
    CODES,
    MEASURES,
    Row,
    Study,
    _study_features,
    comparison_table,
    measure,
    save_summary,
    study_caption,
    study_clips,
    summarise,
    without_zeros,
)
from lift.model import LiFT, LiFTConfig
from lift.store import FeatureStore

MODEL = {"latent_dim": 8, "depth": 1, "heads": 2, "dropout": 0.0}
SETTINGS = {
    "recipe": MODEL | {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3},
    "variants": {
        "lift": {}, "lstm": {"encoder": "lstm"}, "polynomial_2": {"encoder": "polynomial_2"},
        "frames_4": {"input_frames": 4}, "another": {"backbone": "another"},
        "own": {"backbone": "made up"}, "nothing": None, "wrong": {"depht": 3},
    },
    "seeds": 2, "bootstrap": 100,
}  # fmt: skip


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


def test_measure_scores_every_validation_clip_and_knows_a_perfect_line(study):
    model = LiFT(LiFTConfig(feature_dim=10, **MODEL)).eval()
    table = measure(model, study.store, study.clips)
    validation = study.clips[study.clips["split"] == "validation"]
    assert set(table.index) == set(validation["clip_id"])
    assert set(table[list(CODES)].to_numpy().ravel()) <= {0, 100}
    assert (table["latent_curvature"] == 0).all(), "a line"
    x = study.store.read(list(table.index))
    centre, _ = study.store.statistics(study.clips.loc[study.clips["split"] == "train", "clip_id"])
    error = (model(x).reconstruction - x).square().mean((1, 2)) / (x - centre).square().mean()
    np.testing.assert_allclose(table["reconstruction_error"], error.detach(), rtol=1e-4)


def test_predicting_the_training_mean_has_a_reconstruction_error_of_one(study):
    model = LiFT(LiFTConfig(feature_dim=10, **MODEL)).eval()
    ids = list(study.clips.loc[study.clips["split"] == "train", "clip_id"])
    model.set_feature_statistics(*study.store.statistics(ids))
    for weight in model.decoder.parameters():
        torch.nn.init.zeros_(weight)  # decodes to 0, which is the mean of the features
    assert measure(model, study.store, study.clips)["reconstruction_error"].mean() == pytest.approx(
        1, abs=1e-5
    )


def test_a_trained_variant_is_read_and_one_that_is_not_is_named(study):
    with pytest.raises(
        FileNotFoundError,
        match="lstm-0.*not trained yet; run lift ablation train PROFILE lstm --seed 0",
    ):
        summarise(study, [Row("sequence", "LSTM", "lstm")])
    written = study.train("lstm", 0)
    assert written == study.folder / "lstm-0" / "measurements.csv"
    assert len(study.measurements("lstm", 0)) == 24
    assert not (written.parent / "checkpoints").exists()
    assert (written.parent / "model.safetensors").exists()
    with pytest.raises(FileNotFoundError, match="lstm-1"):
        summarise(study, [Row("sequence", "LSTM", "lstm")])


def test_unknown_variants_and_fields_are_named(study):
    with pytest.raises(ValueError, match="no variant 'gru': choose one of lift, lstm"):
        study.train("gru", 0)
    with pytest.raises(ValueError, match="no such field of LiFTConfig or TrainingConfig: depht"):
        study.train("wrong", 0)


def test_a_killed_training_resumes(study, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lift.ablation.measure", killed)
        with pytest.raises(KeyboardInterrupt):
            study.train("lift", 0)
    folder = study.folder / "lift-0"
    assert not (folder / "measurements.csv").exists()
    assert (folder / "checkpoints" / "last.ckpt").exists()
    study.train("lift", 0)
    assert len(study.measurements("lift", 0)) == 24


def test_other_features_replace_a_finished_training(study, tmp_path):
    study.train("lift", 0)
    before = study.measurements("lift", 0)
    other = dataclasses.replace(study, store=make_store(tmp_path / "other", study.clips, seed=1))
    other.train("lift", 0)
    assert not other.measurements("lift", 0).equals(before)


def test_fewer_frames_are_the_first_the_last_and_some_between(study):
    study.train("frames_4", 0)
    four = LiFT.from_pretrained(study.folder / "frames_4-0")
    assert measure(four, _study_features(study, "frames_4"), study.clips).notna().all().all()
    whole = study.store.read(study.store.ids[:5])
    part = _study_features(study, "frames_4").read(study.store.ids[:5])
    assert part.shape == (5, 4, 10) and torch.equal(part[:, [0, -1]], whole[:, [0, -1]])


def test_variants_on_another_backbone_read_its_store(study, tmp_path):
    make_store(tmp_path / "other", study.clips, seed=2, name="another")
    study = dataclasses.replace(
        study, others={"another": tmp_path / "other", "made up": tmp_path / "nowhere"}
    )
    assert _study_features(study, "own") is study.store
    assert _study_features(study, "nothing") is study.store
    assert _study_features(study, "another").description["name"] == "another"


def test_sizes_of_the_codes_and_the_number_of_seeds_are_in_the_table(study, tmp_path):
    for seed in (0, 1):
        study.train("polynomial_2", seed)
    summary = summarise(study, [Row("code", code, "polynomial_2", code) for code in CODES])
    assert list(summary["dimension"].unique()) == [24, 8, 16]
    assert list(summary["measure"].unique()) == list(MEASURES.values())
    table = comparison_table(summary)
    assert list(table["seeds"]) == ["2 seeds"] * 3 and "2 seeds" in study_caption(study)
    save_summary(summary, tmp_path, "A caption.")
    assert {path.name for path in tmp_path.glob("ablation.*")} == {
        f"ablation.{kind}" for kind in ("md", "csv", "tex", "json")
    }


def test_a_number_from_one_seed_is_marked_so(study):
    single = dataclasses.replace(study, settings={**SETTINGS, "seeds": 1})
    single.train("lift", 0)
    summary = summarise(single, [Row("path", "line", "lift")])
    assert list(comparison_table(summary)["seeds"]) == ["one seed"]
    assert "one seed" in study_caption(single)
    assert MEASURES["latent_curvature"] not in set(without_zeros(summary)["measure"])


def test_the_study_takes_the_first_clips_of_each_sign():
    clips = study_clips(make_clips(), 2, 5)
    assert len(clips[clips["split"] == "train"]) == 8
    assert len(clips[clips["split"] == "validation"]) == 20
    assert "train-a-0-0" in set(clips["clip_id"]) and "train-a-0-2" not in set(clips["clip_id"])
