"""Tables: three forms of one table, cited facts, provenance that two equal runs share."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lift import tables
from lift.tables import beside_reported, provenance, reported, save_json, save_table, with_interval

FRAME = pd.DataFrame(
    [("a_b", 1 / 3, 1, "-"), ("x | y", np.nan, 2, None), ("50 % & more", 76.25, 3, "")],
    columns=["model", "accuracy", "clips", "note"],
)


def row(path: Path, number: int = 0) -> list[str]:
    """The cells of one row of the table in a Markdown file."""
    return [cell.strip() for cell in path.read_text().splitlines()[4 + number].split("|")[1:-1]]


def test_three_files_hold_the_same_table(tmp_path):
    save_table(FRAME, tmp_path, "result", "Accuracy of 100 % & more.")
    expected = ["result.csv", "result.md", "result.tex"]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected
    lines = (tmp_path / "result.md").read_text().splitlines()
    assert lines[0] == "Accuracy of 100 % & more." and lines[1] == ""
    assert lines[3].count("---:") == 2
    assert row(tmp_path / "result.md") == ["a_b", "0.3", "1", "-"]
    assert r"x \| y" in lines[5]
    read = pd.read_csv(tmp_path / "result.csv")
    assert read["accuracy"][0] == 1 / 3 and np.isnan(read["accuracy"][1])
    latex = (tmp_path / "result.tex").read_text()
    assert r"\toprule" in latex and r"\label{tab:result}" in latex
    assert r"\caption{Accuracy of 100 \% \& more.}" in latex
    assert r"a\_b" in latex
    assert r"50 \% \& more" in latex


def test_no_cell_is_blank(tmp_path):
    save_table(FRAME, tmp_path, "result", "Caption.")
    for line in (tmp_path / "result.md").read_text().splitlines()[2:]:
        assert all(cell.strip() for cell in line.split("|")[1:-1])
    rows = [
        line for line in (tmp_path / "result.tex").read_text().splitlines() if line.endswith(r"\\")
    ]
    assert len(rows) == 4
    assert all(cell.strip() for row in rows for cell in row.removesuffix(r"\\").split(" & "))


def test_texts_for_what_is_missing_go_through(tmp_path):
    save_table(
        pd.DataFrame({"a": [1.0, "not reported", "not available here", pd.NA]}),
        tmp_path,
        "result",
        "Caption.",
    )
    body = (tmp_path / "result.md").read_text().splitlines()[4:]
    assert [line.strip("| ") for line in body] == ["1.0", "not reported", "not available here", "-"]


def test_digits_by_column_and_named_index(tmp_path):
    frame = pd.DataFrame({"a": [1.25], "b": [0.12345]}, index=pd.Index(["LiFT"], name="model"))
    save_table(frame, tmp_path, "result", "Caption.", digits={"b": 3})
    assert row(tmp_path / "result.md") == ["LiFT", "1.2", "0.123"]


def test_float32_and_booleans_are_rounded_and_written(tmp_path):
    third = np.float32(1 / 3)
    frame = pd.DataFrame({"a": np.array([third]), "b": [True], "c": pd.array([3], "Int64")})
    save_table(frame.assign(d=pd.Series([third], dtype=object)), tmp_path, "result", "Caption.")
    assert row(tmp_path / "result.md") == ["0.3", "True", "3", "0.3"]


def test_the_same_table_is_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        save_table(FRAME, tmp_path / folder, "result", "Caption.")
    for kind in ("md", "csv", "tex"):
        assert (tmp_path / "one" / f"result.{kind}").read_bytes() == (
            tmp_path / "two" / f"result.{kind}"
        ).read_bytes()


@pytest.mark.parametrize(
    ("frame", "name", "caption"), [(FRAME[:0], "a", "x"), (FRAME, "a/b", "x"), (FRAME, "a", " ")]
)
def test_a_bad_table_is_refused_and_writes_nothing(tmp_path, frame, name, caption):
    with pytest.raises(ValueError, match="at least one row"):
        save_table(frame, tmp_path, name, caption)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((76.321, 74.08, 78.4), "76.3 [74.1, 78.4]"),
        ((77.2, np.nan, np.nan), "77.2"),
        ((np.nan, 1, 2), "-"),
        ((-1, -2, 0), "-1.0 [-2.0, 0.0]"),
    ],
)
def test_with_interval(numbers, text):
    assert with_interval(*numbers) == text


def test_reported_numbers_are_cited():
    facts = reported()
    assert (
        len(facts) == 231 and facts["source"].str.len().min() > 5 and facts["value"].notna().all()
    )
    clip = reported("cosettle_t10", "CiA-SSv2").set_index("model")["value"]
    assert clip["CLIP ViT-B/16"] == 79.1


@pytest.mark.parametrize("arguments", [("nothing",), ("cosettle_t10", "K400")])
def test_an_unknown_table_or_data_set_lists_the_known_ones(arguments):
    with pytest.raises(ValueError, match="known: .*"):
        reported(*arguments)


OURS = pd.DataFrame(
    [("LiFT", "SSv2", "probe_top1", 1 / 3, 0.1, 0.6)],
    columns=["model", "dataset", "metric", "value", "low", "high"],
)


def test_our_rows_come_first_and_every_row_has_a_source():
    both = beside_reported(OURS, "standard_benchmarks_a", dataset="SSv2")
    assert both["source"][0] == "this run: synthetic benchmark" and both["value"][0] == 1 / 3
    assert both["source"][1:].str.startswith("published: ").all() and len(both) == 9
    assert (both["low"][1:] == "not reported").all() and not both.isna().any(axis=None)
    assert both.columns[-1] == "source" and "note" not in both and "table" not in both


def test_what_we_lack_is_not_called_unreported():
    both = beside_reported(OURS, "cosettle_t10", metric="chiral_accuracy")
    assert both["params_m"][0] == "not available here"
    assert (both["params_m"][1:] != "not available here").all()


def test_spread_gives_each_data_set_a_column():
    wide = beside_reported(OURS, "standard_benchmarks_a", spread="dataset")
    assert list(wide.columns[-5:]) == ["SSv2", "K400", "UCF101", "HMDB51", "source"]
    assert wide["SSv2"][0] == "0.3 [0.1, 0.6]"
    assert wide["K400"][0] == "not available here"
    assert len(wide) == 9
    facts = reported("standard_benchmarks_a", "K400").set_index("model")["value"]
    assert wide.set_index("model")["K400"][1:].astype(float).to_dict() == facts.to_dict()


def test_beside_reported_names_its_faults():
    with pytest.raises(ValueError, match="missing: value"):
        beside_reported(OURS.drop(columns="value"), "cosettle_t10")
    with pytest.raises(ValueError, match="known: chiral_accuracy"):
        beside_reported(OURS, "cosettle_t10", metric="top5")
    with pytest.raises(ValueError, match="share"):
        beside_reported(pd.concat([OURS, OURS]), "standard_benchmarks_a", spread="dataset")


def test_beside_reported_can_be_saved(tmp_path):
    save_table(
        beside_reported(OURS, "standard_benchmarks_a", spread="dataset"),
        tmp_path,
        "both",
        "Caption.",
    )
    assert "not available here" in (tmp_path / "both.md").read_text()


def test_provenance_names_no_machine():
    first = provenance("smoke", 3)
    assert first == provenance("smoke", 3)
    assert set(first) == {"profile", "seed", "commit", "versions"} and first["seed"] == 3
    assert first["versions"]["torch"] and first["versions"]["python"].count(".") == 2
    text = json.dumps(first)
    assert os.uname().nodename not in text and str(Path.cwd()) not in text


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A small repository that holds a copy of this room and its facts."""
    package = tmp_path / "lift"
    package.mkdir()
    source = Path(tables.__file__).parent
    for name in ("tables.py", "io.py", "reported.json"):
        shutil.copy(source / name, package / name)
    (package / "__init__.py").write_text("")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "README.md").write_text("old\n")
    return tmp_path


def commit_of(checkout: Path) -> str:
    code = "from lift.tables import provenance; print(provenance('smoke', 0)['commit'])"
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "GIT_CEILING_DIRECTORIES": str(checkout.parent),
    }
    options = {
        "cwd": checkout, "env": environment, "check": True, "capture_output": True, "text": True,
    }  # fmt: skip
    return subprocess.run([sys.executable, "-P", "-c", code], **options).stdout.strip()


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    options = {"cwd": folder, "check": True, "capture_output": True, "text": True}
    return subprocess.run(["git", *identity, *arguments], **options).stdout.strip()


def test_the_commit_is_unknown_outside_git_and_in_a_foreign_repository(checkout):
    assert commit_of(checkout) == "unknown"
    git(checkout, "init", "-q")
    git(checkout, "add", "figures")
    git(checkout, "commit", "-qm", "other")
    assert commit_of(checkout) == "unknown"


def test_a_changed_source_makes_the_commit_dirty_but_an_output_does_not(checkout):
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "all")
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / "figures" / "README.md").write_text("new\n")
    (checkout / "untracked.txt").write_text("x")
    assert commit_of(checkout) == head
    (checkout / "lift" / "__init__.py").write_text("changed = True\n")
    assert commit_of(checkout) == f"{head}-dirty"


def test_json_is_sorted_plain_and_reproducible(tmp_path):
    save_json(
        {"b": np.float32(0.5), "a": {"y": np.arange(2), "x": (np.int64(1), None, True)}},
        tmp_path,
        "metrics",
    )
    text = (tmp_path / "metrics.json").read_text()
    assert json.loads(text) == {"a": {"x": [1, None, True], "y": [0, 1]}, "b": 0.5}
    assert text.index('"a"') < text.index('"b"') and text.endswith("\n")


@pytest.mark.parametrize(
    "bad", [float("nan"), float("inf"), np.float64("nan"), np.array([1.0, np.nan])]
)
def test_what_json_cannot_hold_is_named_and_the_old_file_stays(tmp_path, bad):
    save_json({"a": 1}, tmp_path, "metrics")
    with pytest.raises(ValueError, match=r"metrics\.groups\[1\]\.accuracy"):
        save_json({"groups": [{}, {"accuracy": bad}]}, tmp_path, "metrics")
    with pytest.raises(TypeError, match="metrics.path is a"):
        save_json({"path": Path("x")}, tmp_path, "metrics")
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    save_json({"a": 1}, tmp_path, "metrics")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_json({"a": 2}, tmp_path, "metrics")
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"a": 1}
