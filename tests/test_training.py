"""Training from a store: it learns, resumes, refuses another recipe, and is the same twice."""

import dataclasses
import json
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from lift.model import LiFT, LiFTConfig
from lift.store import FeatureStore
from lift.training import (
    LiFTModule,
    RecipeMismatchError,
    StoreDataset,
    TrainingConfig,
    draw_frames,
    draw_ids,
    fit,
    losses_by_epoch,
    split_ids,
    split_recipe,
)
from lift.variants import variant

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
CONFIG = LiFTConfig(feature_dim=8, latent_dim=8, depth=1, heads=2, dropout=0.0)
RECIPE = TrainingConfig(epochs=3, batch_size=16, learning_rate=3e-3)


def make_store(path: Path, clips: int = 64, name: str = "made up") -> FeatureStore:
    generator = torch.Generator().manual_seed(0)
    start, direction = torch.randn(2, clips, 1, 8, generator=generator)
    features = 3 + 2 * (start + torch.linspace(0, 1, 6)[:, None] * direction)
    store = FeatureStore.create(path, {"name": name, "weights_hash": "0"}, frames=6, dim=8)
    store.append([f"clip-{n:03d}" for n in range(clips)], features)
    return store


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return make_store(tmp_path / "store")


def test_it_learns_and_leaves_a_model_that_loads(store, tmp_path):
    model = fit(
        store, CONFIG, dataclasses.replace(RECIPE, epochs=60), tmp_path / "out", progress=False
    )
    losses = losses_by_epoch(tmp_path / "out")
    assert list(losses["epoch"]) == list(range(60))
    assert losses["train/reconstruction"].iloc[-1] < 0.6 * losses["train/reconstruction"].iloc[0]
    assert (
        losses["validation/reconstruction"].min()
        < 0.8 * losses["validation/reconstruction"].iloc[0]
    )
    loaded = LiFT.from_pretrained(tmp_path / "out")
    x = store.read(store.ids[:3])
    assert torch.equal(loaded.embed(x), model.embed(x))
    assert loaded.config.backbone == store.description
    assert "clips" in (tmp_path / "out" / "README.md").read_text()
    assert list((tmp_path / "out" / "log").rglob("events.out.tfevents.*")), "TensorBoard"


def test_the_saved_model_is_the_one_of_the_lowest_validation_loss(store, tmp_path):
    fit(
        store,
        CONFIG,
        dataclasses.replace(RECIPE, epochs=6, learning_rate=0.3),
        tmp_path / "out",
        progress=False,
    )
    losses = losses_by_epoch(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"validation loss {losses['validation/loss'].min():.4f}" in card
    assert losses["validation/loss"].min() < losses["validation/loss"].iloc[-1], (
        "the last epoch is not the best one here"
    )


def test_same_seed_same_weights_other_seed_other_weights(store, tmp_path):
    first, again, other = (
        fit(store, CONFIG, dataclasses.replace(RECIPE, seed=seed), tmp_path / name, progress=False)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    x = store.read(store.ids[:3])
    assert torch.equal(first.embed(x), again.embed(x))
    assert not torch.equal(first.embed(x), other.embed(x))


def test_standardisation_is_of_the_training_clips_and_can_be_off(store, tmp_path):
    ids = store.ids[:32]
    model = fit(
        store, CONFIG, RECIPE, tmp_path / "on", train_ids=ids, validation_ids=store.ids[32:],
        progress=False,
    )  # fmt: skip
    torch.testing.assert_close(
        model.feature_mean, store.read(ids).mean((0, 1)), atol=1e-3, rtol=1e-3
    )
    raw = dataclasses.replace(RECIPE, standardise="none")
    assert not fit(store, CONFIG, raw, tmp_path / "off", progress=False).feature_mean.any()


def test_resuming_goes_on_and_ends_as_an_undisturbed_run(store, tmp_path):
    config = dataclasses.replace(CONFIG, dropout=0.1)
    recipe = dataclasses.replace(RECIPE, reversal=0.5)
    whole = fit(
        store, config, dataclasses.replace(recipe, epochs=4), tmp_path / "whole", progress=False
    )
    fit(store, config, dataclasses.replace(recipe, epochs=2), tmp_path / "parts", progress=False)
    parts = fit(
        store, config, dataclasses.replace(recipe, epochs=4), tmp_path / "parts", progress=False
    )
    assert list(losses_by_epoch(tmp_path / "parts")["epoch"]) == [0, 1, 2, 3]
    assert torch.equal(
        parts.embed(store.read(store.ids[:2])), whole.embed(store.read(store.ids[:2]))
    )


@pytest.mark.parametrize("mode, filled", [("default", True), ("warn", False)])
def test_fit_leaves_torch_as_it_was(store, tmp_path, mode, filled):
    settings, kept = torch.utils.deterministic, torch.utils.deterministic.fill_uninitialized_memory
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(mode)
    settings.fill_uninitialized_memory = filled
    try:
        fit(store, CONFIG, RECIPE, tmp_path / "m", progress=False)
        assert torch.get_deterministic_debug_mode() == {"default": 0, "warn": 1}[mode]
        assert settings.fill_uninitialized_memory is filled
    finally:
        torch.set_deterministic_debug_mode(before)
        settings.fill_uninitialized_memory = kept


def test_a_killed_run_resumes(tmp_path):
    make_store(tmp_path / "store")
    script = textwrap.dedent("""
        import sys
        from lift.model import LiFTConfig
        from lift.training import TrainingConfig, fit
        fit(sys.argv[1], LiFTConfig(feature_dim=8, latent_dim=8, depth=1, heads=2, dropout=0.0),
            TrainingConfig(epochs=int(sys.argv[3]), batch_size=16), sys.argv[2], progress=False)
    """)
    command = [sys.executable, "-c", script, str(tmp_path / "store"), str(tmp_path / "out")]
    victim = subprocess.Popen(
        [*command, "100000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    last = tmp_path / "out" / "checkpoints" / "last.ckpt"
    for _ in range(600):
        if last.exists() and last.stat().st_size:
            break
        time.sleep(0.1)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    reached = torch.load(last, weights_only=True)["epoch"]
    subprocess.run([*command, str(reached + 3)], check=True, capture_output=True)
    assert torch.load(last, weights_only=True)["epoch"] == reached + 2
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_another_recipe_in_the_same_folder_is_refused_by_name(store, tmp_path):
    fit(store, CONFIG, RECIPE, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="training.learning_rate"):
        fit(
            store,
            CONFIG,
            dataclasses.replace(RECIPE, learning_rate=1.0),
            tmp_path / "out",
            progress=False,
        )
    with pytest.raises(ValueError, match="model.depth"):
        fit(store, dataclasses.replace(CONFIG, depth=2), RECIPE, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="data.name"):
        fit(
            make_store(tmp_path / "other", name="other"),
            CONFIG,
            RECIPE,
            tmp_path / "out",
            progress=False,
        )


def test_other_features_of_the_same_clips_are_other_data(store, tmp_path):
    fit(store, CONFIG, RECIPE, tmp_path / "out", progress=False)
    other = FeatureStore.create(tmp_path / "other", store.description, frames=6, dim=8)
    other.append(store.ids, 2 * store.read(store.ids))
    with pytest.raises(ValueError, match="another data.clips"):
        fit(other, CONFIG, RECIPE, tmp_path / "out", progress=False)


def test_a_clip_that_the_store_lacks_leaves_the_folder_free(store, tmp_path):
    with pytest.raises(KeyError, match="nowhere"):
        fit(
            store, CONFIG, RECIPE, tmp_path / "out", train_ids=[*store.ids, "nowhere"],
            progress=False,
        )  # fmt: skip
    fit(store, CONFIG, RECIPE, tmp_path / "out", progress=False)


@pytest.mark.parametrize("name", ["last", "best"])
@pytest.mark.parametrize("content", [b"", b"PK half a file"])
def test_a_damaged_checkpoint_is_named_with_what_to_do(store, tmp_path, name, content):
    fit(store, CONFIG, RECIPE, tmp_path / "out", progress=False)
    (tmp_path / "out" / "checkpoints" / f"{name}.ckpt").write_bytes(content)
    longer = dataclasses.replace(RECIPE, epochs=4)
    with pytest.raises(ValueError, match=rf"{name}\.ckpt: is .*delete .*out to train again"):
        fit(store, CONFIG, longer, tmp_path / "out", progress=False)
    if name == "last":
        (tmp_path / "out" / "checkpoints" / "last.ckpt").write_bytes(
            (tmp_path / "out" / "checkpoints" / "best.ckpt").read_bytes()
        )
        fit(store, CONFIG, longer, tmp_path / "out", progress=False)
        assert losses_by_epoch(tmp_path / "out")["epoch"].max() == 3


def test_a_run_whose_loss_is_never_finite_says_so(store, tmp_path):
    with pytest.raises(ValueError, match="no epoch had a finite validation loss"):
        fit(
            store,
            CONFIG,
            dataclasses.replace(RECIPE, learning_rate=1e20),
            tmp_path / "out",
            progress=False,
        )


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_checkpoints_that_were_moved_are_named(store, tmp_path):
    fit(store, CONFIG, RECIPE, tmp_path / "out", progress=False)
    (tmp_path / "out").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="moved.*were moved here"):
        fit(store, CONFIG, RECIPE, tmp_path / "moved", progress=False)


def test_feature_dimensions_that_differ_are_refused(store, tmp_path):
    with pytest.raises(ValueError, match="8 dimensions.*feature_dim is 9"):
        fit(store, LiFTConfig(feature_dim=9, latent_dim=8, heads=2), RECIPE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match="at least 2 clips"):
        split_ids(["only"], 0.1, seed=0)


def test_split_is_disjoint_and_complete():
    ids = [str(n) for n in range(50)]
    train, validation = split_ids(ids, 0.1, seed=3)
    assert sorted(train + validation) == sorted(ids) and len(validation) == 5
    assert split_ids(ids, 0.1, seed=3) == (train, validation) != split_ids(ids, 0.1, seed=4)


def test_a_batch_is_one_read(store):
    dataset = StoreDataset(store, store.ids)
    torch.testing.assert_close(dataset.__getitems__([5, 2]), torch.stack([dataset[5], dataset[2]]))


def test_augmentation_reverses_half_of_the_clips():
    seen = []

    class Spy(LiFTModule):
        def _step(self, batch, index, split):
            seen.append(batch)
            return batch.sum()

    x = torch.arange(6.0)[None, :, None].expand(400, 6, 8)
    torch.manual_seed(0)
    for reversal in (0.5, 0.0):
        Spy(LiFT(CONFIG), dataclasses.replace(RECIPE, reversal=reversal)).training_step(x, 0)
    reversed_clips = (seen[0][:, 0, 0] == 5).float().mean()
    assert 0.4 < reversed_clips < 0.6 and torch.equal(seen[1], x)


@pytest.mark.parametrize(
    "field, value",
    [
        ("epochs", 0),
        ("validation_fraction", 1.0),
        ("learning_rate", -1.0),
        ("learning_rate", math.nan),
        ("reversal", 1.5),
        ("train_clips", -1),
        ("orthogonality", -1.0),
    ],
)
def test_wrong_recipes_name_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        TrainingConfig(**{field: value})


def test_the_recipe_is_written_down(store, tmp_path):
    fit(store, CONFIG, RECIPE, tmp_path / "out", progress=False)
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert recipe["training.seed"] == "0" and recipe["model.latent_dim"] == "8"


def test_a_damaged_recipe_is_named(store, tmp_path):
    (tmp_path / "recipe.json").write_text('{"training.seed": ')
    with pytest.raises(ValueError, match="recipe.json: is damaged .*; delete .* to train again"):
        fit(store, CONFIG, RECIPE, tmp_path, progress=False)


def test_the_card_of_a_longer_run_has_its_own_numbers(store, tmp_path):
    fit(store, CONFIG, RECIPE, tmp_path / "out", progress=False)
    before = (tmp_path / "out" / "README.md").read_text()
    fit(store, CONFIG, dataclasses.replace(RECIPE, epochs=9), tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "README.md").read_text() != before


def test_an_unknown_standardisation_is_refused():
    with pytest.raises(ValueError, match="standardise must be one of dimension, none"):
        TrainingConfig(standardise="global")


def test_a_part_of_the_training_clips_follows_from_the_seed():
    ids = [f"clip{n:02d}" for n in range(40)]
    some = draw_ids(ids, 10, seed=3)
    assert len(some) == 10
    assert some == sorted(some) == draw_ids(ids, 10, seed=3)
    assert some != draw_ids(ids, 10, seed=4)
    assert draw_ids(ids, 0, seed=3) == ids
    with pytest.raises(ValueError, match="train_clips is 41, but there are 40"):
        draw_ids(ids, 41, seed=3)


def test_a_variant_is_trained_and_its_folder_is_its_own(store, tmp_path):
    kind = variant("polynomial_2")
    model = fit(store, CONFIG, RECIPE, tmp_path / "out", progress=False, kind=kind)
    assert isinstance(model, kind) and model.code_dims[1] == 2 * model.code_dims[0]
    with pytest.raises(RecipeMismatchError, match="another kind"):
        fit(store, CONFIG, RECIPE, tmp_path / "out", progress=False)


def test_a_recipe_is_split_into_model_and_training():
    config, training = split_recipe(
        {"latent_dim": 8, "heads": 2, "learning_rate": "5e-4", "curvature": 1, "seed": 3}, 24
    )
    assert (
        config.feature_dim,
        config.latent_dim,
        training.learning_rate,
        training.curvature,
        training.seed,
    ) == (24, 8, 5e-4, 1.0, 3)
    with pytest.raises(
        ValueError, match="no such field of LiFTConfig or TrainingConfig: latentdim"
    ):
        split_recipe({"latentdim": 8}, 24)
    with pytest.raises(ValueError, match="depth takes a value such as 4, got 'two'"):
        split_recipe({"depth": "two"}, 24)


@pytest.mark.parametrize("window", [0.25, 1.0])
def test_frames_drawn_from_a_window_keep_their_order_and_their_clip(window):
    x = (
        torch.arange(31.0)[None, :, None].expand(200, -1, 2)
        + 100 * torch.arange(200.0)[:, None, None]
    )
    drawn = draw_frames(x, 16, window) - 100 * torch.arange(200.0)[:, None, None]
    assert drawn.shape == (200, 16, 2) and drawn.min() >= 0 and drawn.max() <= 30
    times = drawn[..., 0]
    assert (times.diff(dim=1) >= 0).all(), "time runs forwards"
    spans = times[:, -1] - times[:, 0]
    assert spans.min() >= 31 * window * 14 / 16 - 2 and (
        window == 1 or spans.max() > spans.min() + 5
    ), "of many lengths"


def test_a_model_trained_on_windows_is_validated_on_evenly_spread_frames(store, tmp_path):
    config = LiFTConfig(feature_dim=store.dim, latent_dim=8, depth=1, heads=2)
    training = TrainingConfig(epochs=2, frames=3, keep_every=1)
    model = fit(store, config, training, tmp_path / "out", progress=False)
    kept = sorted(path.name for path in (tmp_path / "out" / "checkpoints" / "kept").glob("*.ckpt"))
    assert kept == ["epoch=0.ckpt", "epoch=1.ckpt"]
    assert model.embed(store.read()[:, :3]).isfinite().all()


@pytest.mark.parametrize("fields", [{"frames": -1}, {"frames": 4, "window": 0.0}, {"window": 1.5}])
def test_windows_that_make_no_sense_are_refused(fields):
    with pytest.raises(ValueError, match="frames must be at least 0 and window"):
        TrainingConfig(**fields)


def test_two_processes_give_the_losses_of_one(store, tmp_path):
    """Of 64 clips 53 are trained on: the last batches hold 5 and 1 clips, unequal shares."""
    if torch.cuda.is_available():
        pytest.skip("the processes of this test are on the CPU")
    recipe = dataclasses.replace(RECIPE, validation_fraction=11 / 64, batch_size=13)
    assert 53 % 13 == 1 and 11 % 2
    for devices in (1, 2):
        shared = dataclasses.replace(recipe, devices=devices)
        fit(store, CONFIG, shared, tmp_path / str(devices), progress=False)
    one, two = (losses_by_epoch(tmp_path / devices) for devices in "12")
    assert list(one) == list(two) and len(one) == len(two) == 3
    torch.testing.assert_close(
        torch.tensor(two.to_numpy()), torch.tensor(one.to_numpy()), rtol=1e-4, atol=1e-5
    )
    models = [LiFT.from_pretrained(tmp_path / devices) for devices in "12"]
    x = store.read(store.ids[:3])
    torch.testing.assert_close(*(model.embed(x) for model in models), rtol=1e-3, atol=1e-3)
