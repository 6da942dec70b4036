"""Runs: found from anywhere in the checkout, refused by name when they do not exist."""

from pathlib import Path

import pytest
import yaml

from lift.reproduction import Run, find_run, open_run, repository

ROOT = Path(__file__).parents[1]


def test_the_repository_is_found_from_a_folder_inside(monkeypatch):
    monkeypatch.chdir(ROOT / "nbs" / "paper")
    assert repository() == ROOT


def test_outside_a_checkout_the_error_says_so(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no dvc.yaml"):
        repository()


def test_an_unknown_profile_is_refused_with_those_that_exist(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(FileNotFoundError, match="'overnight'.*demo, .*smoke"):
        open_run("overnight")


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.yaml")), ids=lambda path: path.stem)
def test_profiles_hold_what_the_notebooks_read(path):
    parameters = yaml.safe_load(path.read_text())["profiles"][path.stem]
    studies = {"real"} if "real" in parameters else {"ablation", "straightening"}
    assert {"seed", "gallery", "synthetic", "features", "model", "training", "bootstrap", *studies} <= parameters.keys()


def test_an_output_folder_names_profile_seed_commit_and_versions(tmp_path):
    output = Run("smoke", tmp_path, {"seed": 3}).output("table9")
    record = yaml.safe_load((output / "provenance.json").read_text())
    assert (record["profile"], record["seed"]) == ("smoke", 3) and record["commit"] and "torch" in record["versions"]


def test_a_run_is_loaded_as_it_is(monkeypatch):
    monkeypatch.chdir(ROOT)
    run = find_run("full")
    assert run.folder == ROOT / "runs" / "full" and run.parameters["ablation"]["seeds"] >= 3
    with pytest.raises(FileNotFoundError, match="'overnight'"):
        find_run("overnight")
