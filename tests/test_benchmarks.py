"""The profile paper: its whole DAG is shown without data, and every stage runs on miniature copies of all data sets at once."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from miniature import make_all, make_charades, make_hmdb51, make_kinetics

from lift.benchmarks import (
    BENCHMARKS,
    STEPS,
    _embeddings,
    feature_part,
    mining_counts,
    read_group_results,
    read_outside,
    read_summary,
    run_benchmarks,
    run_step,
    split_method,
)
from lift.embedding import BASELINES, EmbeddingError, write_embeddings
from lift.reproduction import Run, open_run
from lift.store import FeatureStore
from lift.training import split_recipe

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
NOTEBOOKS = [
    "table4_real_benchmark_statistics", "table5_real_chiral_accuracy", "table6_standard_benchmarks", "figure5_group_size_noise",
]  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the sources, with nothing made."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("lift", "nbs", "config", "tools"):
        shutil.copytree(
            ROOT / folder,
            copy / folder,
            ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
        )
    shutil.copy(ROOT / "Snakefile", copy / "Snakefile")
    return copy


def snakemake(checkout: Path, profile: str, *arguments: str, data: Path | None = None) -> str:
    """Run Snakemake in the checkout as `make reproduce` does; what it printed."""
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
        "IN_TEST": "1",
    }
    environment = {name: value for name, value in environment.items() if name != "LIFT_DATA"}
    environment |= {"LIFT_DATA": str(data)} if data else {}
    command = [
        BIN / "snakemake", "--cores", "2", "--configfile", f"config/{profile}.yaml", "--scheduler",
        "greedy", "--nolock",
    ]  # fmt: skip
    result = subprocess.run(
        [*command, *arguments], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.mark.parametrize("profile", ["smoke", "demo", "full", "droid", "claims", "mini", "paper"])
def test_the_whole_dag_is_shown_without_data(checkout, profile):
    shown = snakemake(checkout, profile, "-n", "-p")
    names = {
        line.split(":")[0].split()[-1]
        for line in shown.splitlines()
        if re.match(r"(local)?rule \w+:", line)
    }
    assert {"notebook", "gallery"} <= names
    real = profile in ("droid", "claims", "mini", "paper")
    assert names >= ({"real"} if real else {"clips", "features", "model", "code"})
    assert not (checkout / "runs").exists()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Miniature copies of all data sets."""
    return make_all(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def made(checkout, data) -> Path:
    """A checkout of its own in which the profile mini was made."""
    copy = shutil.copytree(checkout, checkout.parent / "made")
    snakemake(copy, "mini", data=data)
    return copy


def test_every_job_runs_on_miniature_copies_of_all_data_sets(made, data):
    checkout = made
    run = Run("mini", checkout, open_run("mini").parameters)
    for kind in ("chiral", "classes"):
        summary = read_summary(run, kind)
        packaged = summary["method"] == "packaged"
        scored = summary[~packaged]
        assert scored["value"].between(0, 100).all() and scored["reason"].isna().all(), summary
        cause = "made by a backbone with name 'test_efficientnet'"
        assert summary.loc[packaged, "reason"].str.contains(cause).all()
    sit = read_summary(run, "chiral").query("benchmark == 'cia-hmdb51' and method == 'equivariant'")
    assert sit["groups"].tolist() == [1] and sit["n_test"].tolist() == [2]
    ablations = [
        pd.read_csv(path)
        for path in (checkout / "runs" / "mini" / "figures").glob("ablation_*/ablation.csv")
    ]
    assert len(ablations) == 8 and all(len(table) >= 2 for table in ablations), (
        "one row per variant"
    )
    page = (checkout / "runs" / "mini" / "gallery" / "README.md").read_text()
    assert all(notebook in page for notebook in NOTEBOOKS) and "random weights" in page
    assert not re.search(r"\bnan\b", page)
    left_out = json.loads(
        (checkout / "runs/mini/figures/table4_real_benchmark_statistics/left_out.json").read_text()
    )
    assert len(left_out["kinetics400"]["missing"]) == 2
    assert "48 were there" in run_step(run, "features", progress=False)
    assert "Nothing to be done" in snakemake(checkout, "mini", "-n", data=data), (
        "a second call does nothing"
    )


def test_what_reruns_is_what_depends_on_a_change(made, data):
    figures = made / "lift" / "figures.py"
    figures.touch()
    assert "Nothing to be done" in snakemake(made, "mini", "-n", data=data)
    before = figures.read_text()
    figures.write_text(before + "\n\nADDED = 1\n")
    names = jobs(made, "mini", data)
    figures.write_text(before)
    assert names == {"notebook", "gallery"}, "what draws, and no clip, feature or model"


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Run:
    """The profile mini in a checkout where nothing was made, with a data folder that is empty."""
    for name in ("Snakefile", "config/mini.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIFT_DATA", str(tmp_path / "data"))
    return open_run("mini")


def execute(notebook: str, profile: str) -> None:
    """The code cells of a paper notebook, in this process."""
    matplotlib.use("agg")
    space: dict = {}
    for cell in json.loads((ROOT / "nbs" / "paper" / f"{notebook}.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), space)  # noqa: S102
            if "parameters" in cell["metadata"].get("tags", []):
                space["profile"] = profile


def test_absent_data_sets_are_rows_and_the_needed_one_is_named_in_a_line(bare, capsys):
    for step in ("clips", *STEPS):
        told = run_step(bare, step, bare.root / "data", progress=False)
        if step in ("model", "embeddings"):
            assert "training clips of K400 in the folder kinetics400" in told
            assert told.count("\n") == 0
    for notebook in NOTEBOOKS:
        execute(notebook, "mini")
    figures = bare.folder / "figures"
    tables = [
        "table4_real_benchmark_statistics/chiral",
        "table4_real_benchmark_statistics/clips",
        "table5_real_chiral_accuracy/accuracy",
    ]
    for path in [
        *tables,
        "table6_standard_benchmarks/top1",
        "figure5_group_size_noise/least_difference",
    ]:
        table = pd.read_csv(figures / f"{path}.csv", keep_default_na=False, dtype=str)
        ours = table[~table.apply(lambda row: "published" in " ".join(row), axis=1)]
        assert len(ours) and (ours == "not available here").any(axis=1).all(), path
        assert not ours.isin(["", "nan"]).drop(columns="note", errors="ignore").any().any(), path
    assert (figures / "table5_real_chiral_accuracy" / "accuracy_parameters_published.png").is_file()
    assert "Charades: not available here" in capsys.readouterr().out


def test_a_relative_data_folder_is_below_the_checkout(bare, monkeypatch):
    make_charades(bare.root / "data" / "charades")
    monkeypatch.setenv("LIFT_DATA", "data")
    told = run_step(bare, "clips", "data")
    assert "cia-charades: 96 clips" in told
    assert f"ssv2: {bare.root / 'data' / 'ssv2'}: no such folder" in told
    (bare.root / "nbs" / "paper").mkdir(parents=True)
    monkeypatch.chdir(bare.root / "nbs" / "paper")  # where papermill runs the notebook
    execute("table4_real_benchmark_statistics", "mini")
    output = bare.folder / "figures" / "table4_real_benchmark_statistics"
    mined = pd.read_csv(output / "mined.csv").query("dataset == 'Charades' and rule == 'all'")
    assert mined["groups"].item() == "4"
    notes = pd.read_csv(output / "clips.csv").set_index("benchmark")["note"]
    assert notes["ssv2"].startswith("LIFT_DATA/ssv2: no such folder")


def test_a_data_set_without_features_says_so(bare):
    make_charades(bare.root / "data" / "charades")  # its videos are empty files
    for step in ("clips", *STEPS):
        told = run_step(bare, step, bare.root / "data", progress=False)
        if step == "features":
            assert "96 failed" in told and "TE001.mp4: the file is empty" in told
    summary = read_summary(bare, "chiral").set_index("benchmark")
    assert summary.loc["cia-charades", "reason"].eq("no video of it could be read").all()
    execute("figure5_group_size_noise", "mini")
    least = pd.read_csv(
        bare.folder / "figures" / "figure5_group_size_noise" / "least_difference.csv"
    )
    assert least["dataset"].tolist() == ["SSv2", "EPIC", "Charades"]
    assert least["groups"].eq("not available here").all()


def test_kinetics_without_training_clips_costs_only_the_model(bare):
    data = bare.root / "data"
    make_kinetics(data / "kinetics400", real=True)
    (data / "kinetics400" / "train.csv").unlink()
    make_hmdb51(data / "hmdb51", real=True)
    told = {step: run_step(bare, step, data, progress=False) for step in ("clips", *STEPS)}
    for step in ("model", "embeddings"):
        assert "needs at least 2 training clips of K400" in told[step]
    summary = read_summary(bare, "classes").set_index(["benchmark", "method"])
    assert summary.loc[("hmdb51", "mean"), "value"] >= 0
    assert "no clip of split 'train'" in summary.loc[("kinetics400", "mean"), "reason"]
    assert "needs at least 2 training clips of K400" in summary.loc[("hmdb51", "lift"), "reason"]


def test_an_outside_embedding_is_a_row_of_the_tables(bare):
    make_charades(bare.root / "data" / "charades", real=True)
    methods = ["mean", "outside_mine", "outside_short", "outside_none"]
    real = {
        "benchmarks": ["cia-charades"],
        "methods": {"chiral": methods, "classes": []},
        "outside": {"mine": "mine.parquet", "short": "short.parquet"},
    }
    run = Run(bare.profile, bare.root, {**bare.parameters, "real": real})
    for step in ("clips", "features"):
        run_step(run, step, run.root / "data", progress=False)
    clips = pd.read_csv(run.folder / "clips" / "cia-charades.csv")
    # it knows the answer, and holds a clip of something else
    known = clips[["clip_id"]].assign(answer=clips["chiral_label"].fillna(0), noise=0.5)
    mine = pd.concat([known, pd.DataFrame([{"clip_id": "of another", "answer": 1, "noise": 0}])])
    mine.to_parquet(run.root / "mine.parquet")
    known[1:].to_parquet(run.root / "short.parquet")
    told = run_step(run, "embeddings", progress=False)
    assert f"{len(clips)} clips embedded by 1 methods" in told
    run_step(run, "results", progress=False)
    summary = read_summary(run, "chiral").set_index("method")
    assert summary.loc["outside_mine", ["value", "dimension"]].tolist() == [100, 2]
    assert summary.loc["outside_mine", "n_test"] == summary.loc["mean", "n_test"]
    lacking = summary.loc["outside_short", "reason"]
    assert "short.parquet: no row for 1 of" in lacking and known["clip_id"][0] in lacking
    assert (
        "real.outside of the profile has no file for 'none'"
        in summary.loc["outside_none", "reason"]
    )
    # a file that has gone bad takes its row with it
    (run.root / "mine.parquet").write_bytes(b"no parquet")
    for step in ("embeddings", "results"):
        run_step(run, step, progress=False)
    gone = read_summary(run, "chiral").set_index("method").loc["outside_mine"]
    assert np.isnan(gone["value"]) and "mine.parquet: not a table of embeddings" in gone["reason"]


@pytest.mark.parametrize(
    "columns, words",
    [
        ({"id": ["a", "b"], "x": [1.0, 2.0]}, "clip_id"),
        ({"clip_id": ["a", "a"], "x": [1.0, 2.0]}, "clips twice"),
        ({"clip_id": ["a", None], "x": [1.0, 2.0]}, "1 rows have no clip_id"),
        ({"clip_id": ["a", "b"], "x": [1.0, np.nan]}, "no finite numbers: b"),
        ({"clip_id": ["a", "b"], "x": ["one", "two"]}, "not a table of embeddings"),
        ({"clip_id": ["a", "b"], "embedding": [[1.0], [1.0, 2.0]]}, "not a table of embeddings"),
        ({"clip_id": ["a", "b"]}, "no number beside clip_id"),
    ],
)
def test_an_outside_embedding_that_is_none_is_named(tmp_path, columns, words):
    pd.DataFrame(columns).to_parquet(tmp_path / "theirs.parquet")
    with pytest.raises(EmbeddingError, match=words) as refused:
        read_outside(tmp_path / "theirs.parquet")
    assert "theirs.parquet: " in str(refused.value) and "\n" not in str(refused.value)


def test_lists_of_numbers_and_columns_of_numbers_are_the_same(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(3, 2)
    write_embeddings(tmp_path / "ours.parquet", ["a", "b", "c"], array)
    lists = pd.DataFrame({"clip_id": ["a", "b", "c"], "embedding": list(array)})
    lists.to_parquet(tmp_path / "lists.parquet")
    columns = pd.DataFrame(array, columns=["x", "y"]).assign(clip_id=["a", "b", "c"])
    columns.to_parquet(tmp_path / "columns.parquet")
    for name in ("ours", "lists", "columns"):
        table = read_outside(tmp_path / f"{name}.parquet")
        assert list(table.index) == ["a", "b", "c"] and (table.to_numpy() == array).all()


def test_embeddings_come_batch_by_batch(bare):
    ids = [f"clip {n}" for n in range(10000)]
    array = np.arange(40000, dtype=np.float32).reshape(-1, 4)
    store = FeatureStore.create(bare.folder / "features" / "ssv2", {"name": "any"}, 4, 2)
    write_embeddings(bare.folder / "embeddings" / "ssv2" / "lift_static.parquet", ids, array)
    tables = list(_embeddings(bare, store, "lift_static", ids[5:9000]))
    assert len(tables) == 3 and max(map(len, tables)) <= 4096
    assert pd.concat(tables).index.tolist() == ids[5:9000]
    assert (pd.concat(tables).to_numpy() == array[5:9000]).all()


def test_scores_of_data_that_moved_away_are_not_shown(bare):
    make_charades(bare.root / "data" / "charades", real=True)
    for step in ("clips", "features", "results"):
        run_step(bare, step, bare.root / "data", progress=False)
    baselines = [name for name in bare.parameters["real"]["methods"]["chiral"] if name in BASELINES]
    assert set(read_group_results(bare, "cia-charades")) == set(baselines)
    assert "unit_slope" in baselines
    (bare.root / "data" / "charades").rename(bare.root / "moved")
    for step in ("clips", "features", "results"):
        run_step(bare, step, bare.root / "data", progress=False)
    assert read_group_results(bare, "cia-charades") == {}
    execute("figure5_group_size_noise", "mini")
    least = pd.read_csv(
        bare.folder / "figures" / "figure5_group_size_noise" / "least_difference.csv"
    )
    assert least["dataset"].tolist() == ["SSv2", "EPIC", "Charades"]
    assert least["groups"].eq("not available here").all()


@pytest.mark.parametrize(
    ("step", "profile", "data", "words"),
    [
        ("clips", "mini", None, "LIFT_DATA=/data"),
        ("clips", "mini", "nowhere", "no such folder"),
        ("clips", "mini", "Snakefile", "is a file"),
        ("probe", "mini", "data", "no step 'probe'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(bare, step, profile, data, words):
    with pytest.raises(ValueError, match=words) as refused:
        run_step(open_run(profile), step, data)
    assert "\n" not in str(refused.value)


def test_a_synthetic_profile_has_no_real_benchmarks():
    with pytest.raises(ValueError, match="profile smoke has no real data sets"):
        run_step(open_run("smoke"), "clips", "data")
    assert set(read_summary(Run("none", Path("nowhere"), {}), "chiral")["benchmark"]) == {
        name for name, benchmark in BENCHMARKS.items() if benchmark.kind == "chiral"
    }


def test_mined_counts_stand_beside_the_published(shared):
    if not (shared / "annotations" / "epic100").is_dir():
        pytest.skip("the EPIC annotations are absent")
    counts = mining_counts({"epic": shared / "annotations" / "epic100", "ssv2": None}).set_index(
        ["dataset", "rule"]
    )
    found = counts.loc[
        ("EPIC", "published-like"), ["groups", "test", "known_found", "of_known"]
    ].astype(int)
    assert found.tolist() == [66, 3115, 53, 55]
    assert counts.loc["SSv2", "note"].eq("annotations not available here").all()


@pytest.mark.parametrize("profile", ["paper", "mini", "droid"])
def test_parameters_are_those_that_the_steps_take(profile):
    parameters = open_run(profile).parameters
    assert parameters["real"]["train_on"] in BENCHMARKS
    methods = {method for methods in parameters["real"]["methods"].values() for method in methods}
    assert {"baseline", "lift", "equivariant", "packaged"} <= {
        split_method(method)[0] for method in methods
    }
    assert {
        "unit_slope",
        "unit_last_minus_first",
        "unit_late_minus_early",
        "unit_concatenation",
        "equivariant",
        "packaged",
    } <= methods
    assert set(run_benchmarks(open_run(profile))) <= set(BENCHMARKS)


def test_the_paper_is_trained_as_far_as_it_is_known():
    parameters = open_run("paper").parameters
    model, training = split_recipe(parameters["model"], 384)
    features = parameters["features"]
    expected = ("dinov2_vits14_reg", 16, 384)
    assert (features["backbone"], features["frames"], model.latent_dim) == expected
    recipe = (training.batch_size, training.epochs, training.weight_decay, training.standardise)
    assert recipe == (128, 459, 1e-5, "none")


def test_the_parts_of_a_feature(tmp_path):
    whole = torch.arange(2 * 3 * 10).reshape(2, 3, 10).float()
    store = FeatureStore.create(tmp_path / "grid", {"name": "any", "grid": 2, "dim": 10}, 3, 10)
    store.append(["a", "b"], whole)
    for part, columns in (("global", slice(0, 2)), ("cells", slice(2, 10)), ("all", slice(0, 10))):
        view = feature_part(store, part)
        assert torch.equal(view.read(["b", "a"]), whole[[1, 0]][..., columns])
        assert view.dim == view.description["dim"]
        assert torch.equal(view.statistics(["a"])[0], whole[:1, :, columns].mean((0, 1)))
    assert "part" not in feature_part(store, "global").description
    assert feature_part(store, "cells").description["part"] == "cells"
    maps = torch.randn(2, 3, 2 + 49 * 3).half().float()
    deep = FeatureStore.create(
        tmp_path / "deep", {"name": "any", "middle": 1, "middle_channels": 3, "dim": 149}, 3, 149
    )
    deep.append(["a", "b"], maps)
    # the upper left quarter
    first = maps[..., 2:].unflatten(-1, (7, 7, 3))[:, :, :4, :4].mean((2, 3))
    torch.testing.assert_close(
        feature_part(deep, "middle").read()[..., [0, 4, 8]], first, atol=1e-5, rtol=0
    )
    assert torch.equal(feature_part(deep, "global").read(), maps[..., :2])
    with pytest.raises(EmbeddingError, match="features.middle"):
        feature_part(store, "middle")
    plain = FeatureStore.create(tmp_path / "plain", {"name": "any"}, 3, 10)
    assert feature_part(plain, "global") is plain
    with pytest.raises(EmbeddingError, match="features.grid"):
        feature_part(plain, "cells")


@pytest.mark.parametrize(
    "name", ["slop", "unit_slope@quarters", "lift@cells", "packaged@cells", ""]
)
def test_a_method_that_is_none(name):
    with pytest.raises(ValueError, match="no method"):
        split_method(name)


def jobs(checkout: Path, profile: str, data: Path | None = None) -> set[str]:
    """The names of the rules that would run."""
    shown = snakemake(checkout, profile, "-n", data=data)
    return {
        line.split(":")[0].split()[-1]
        for line in shown.splitlines()
        if re.match(r"(local)?rule \w+:", line)
    }


@pytest.mark.parametrize(
    ("old", "new", "rules"),
    [
        ("bootstrap: 100", "bootstrap: 120", {"real", "notebook", "gallery"}),
        ("\n  clips: null", "\n  clips: 3", {"variant", "notebook", "gallery"}),
        ("depth_2: {depth: 2}", "depth_2: {depth: 3}", {"variant", "notebook", "gallery"}),
    ],
)
def test_a_changed_setting_reruns_the_steps_that_read_it(made, data, old, new, rules):
    path = made / "config" / "mini.yaml"
    before = path.read_text()
    assert before.count(old) == 1
    path.write_text(before.replace(old, new))
    try:
        assert jobs(made, "mini", data) == rules
    finally:
        path.write_text(before)


def test_notebooks_depend_on_the_data_files_of_the_package(made, data):
    path = made / "lift" / "reported.json"
    before = path.read_text()
    path.write_text(before + "\n")
    try:
        assert {"notebook", "gallery"} <= jobs(made, "mini", data)
    finally:
        path.write_text(before)


def test_a_data_folder_that_is_not_there_is_named_and_not_a_traceback(checkout, tmp_path):
    assert "notebook" in jobs(checkout, "droid", tmp_path / "nowhere")
