"""Runs: found from anywhere in the checkout, refused by name when they do not exist."""

from pathlib import Path

import pytest
import yaml

from lift.config import read_config
from lift.reproduction import Run, open_run, repository
from lift.training import split_recipe

ROOT = Path(__file__).parents[1]


def test_the_repository_is_found_from_a_folder_inside(monkeypatch):
    monkeypatch.chdir(ROOT / "nbs" / "paper")
    assert repository() == ROOT


def test_outside_a_checkout_the_error_says_so(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no Snakefile"):
        repository()


def test_an_unknown_profile_is_refused_with_those_that_exist(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(FileNotFoundError, match="'overnight'.*demo, .*smoke"):
        open_run("overnight")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem
)
def test_profiles_hold_what_the_steps_read(path):
    parameters = read_config(path)
    expected = {"profile", "seed", "gallery", "notebooks", "features", "model", "bootstrap"}
    if "train_on" not in parameters.get("real", {"train_on": ""}):
        expected.remove("model")  # packaged models alone
        parameters["model"] = {}
    assert expected <= parameters.keys()
    assert parameters["profile"] == path.stem
    recipes = [parameters["model"], *parameters.get("study", {}).values()]
    study = parameters.get("ablation", {"recipe": {}, "variants": {}})
    own = {"encoder", "backbone", "input_frames"}
    recipes += [
        study["recipe"] | {k: v for k, v in (fields or {}).items() if k not in own}
        for fields in study["variants"].values()
    ]
    for recipe in recipes:
        split_recipe(recipe, 384)  # names a field that is none


def test_an_output_folder_names_profile_seed_commit_and_versions(tmp_path):
    output = Run("smoke", tmp_path, {"seed": 3}).output("table9")
    record = yaml.safe_load((output / "provenance.json").read_text())
    assert (record["profile"], record["seed"]) == ("smoke", 3)
    assert record["commit"]
    assert "torch" in record["versions"]


def test_a_run_only_reads_and_says_which_command_makes_what_it_lacks(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    run = open_run("full")
    assert (
        run.folder == ROOT / "runs" / "full"
        and run.parameters["ablation"]["recipe"]["epochs"] > 100
    )
    empty = Run("demo", tmp_path, {})
    for product in ("clips", "store", "model", "equivariant"):
        with pytest.raises(FileNotFoundError, match="run make reproduce PROFILE=demo"):
            getattr(empty, product)
    assert not list(tmp_path.iterdir())
