"""Files that somebody made to do harm: nothing in them is run, written elsewhere, or unpacked without limit."""

import csv
import json
import os
import pickle
import shutil
import subprocess
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from test_benchmarks import BIN, ROOT
from test_extraction import make_table, paint, run
from test_training import CONFIG, RECIPE, make_store

from lift.config import read_config
from lift.data.clips import read_clips, write_clips
from lift.embedding import load_model
from lift.io import InputError, LiftError
from lift.model import LiFT
from lift.store import FeatureStore, StoreError
from lift.tables import save_table
from lift.training import fit
from lift.weights_files import read_checkpoint


class Harm:
    """A pickle that would leave a mark where it is run."""

    def __init__(self, mark: Path):
        self.mark = str(mark)

    def __reduce__(self):
        return (open, (self.mark, "w"))


@pytest.mark.parametrize("how", ["torch", "pickle"])
@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.ckpt", "w.safetensors"])
def test_no_pickle_in_place_of_weights_is_run(tmp_path, how, name):
    content = {"state_dict": {"w": torch.zeros(2)}, "harm": Harm(tmp_path / "run")}
    if how == "torch":
        torch.save(content, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(content))
    for read in (read_checkpoint, LiFT.from_official_checkpoint):
        with pytest.raises(LiftError, match=name):
            read(tmp_path / name)
    assert not (tmp_path / "run").exists()


def test_no_pickle_in_place_of_a_training_checkpoint_is_run(tmp_path):
    store = make_store(tmp_path / "store")
    fit(store, CONFIG, RECIPE, tmp_path / "out", progress=False)
    (tmp_path / "out" / "model.safetensors").unlink()
    for checkpoint in (tmp_path / "out" / "checkpoints").glob("*.ckpt"):
        torch.save({"epoch": 0, "harm": Harm(tmp_path / "run")}, checkpoint)
    with pytest.raises(LiftError, match="ckpt"):
        fit(store, CONFIG, RECIPE, tmp_path / "out", progress=False)
    assert not (tmp_path / "run").exists()


def test_ids_and_paths_that_climb_write_nothing_outside(tmp_path):
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    paint(inside / "a.mp4", 0)
    ids = [
        "../../evil",
        "/evil",
        "..",
        "a/../../b",
        "C:\\evil",
        "~",
        "$(touch evil)",
        "%00",
        "=1+1",
    ]
    table = make_table(["a.mp4"] * len(ids)).assign(clip_id=ids)
    before = {path for path in tmp_path.rglob("*")}
    assert run(table, inside / "store", inside).done == len(ids)
    made = {path for path in tmp_path.rglob("*")} - before
    assert all(path.is_relative_to(inside / "store") for path in made)
    assert FeatureStore.open(inside / "store").ids == sorted(ids)


def test_cells_that_a_spreadsheet_would_run_stay_text(tmp_path):
    cells = ["=cmd|'/c calc'!A0", "+1+1", "-2+3", "@SUM(A1)"]
    table = pd.DataFrame({"clip_id": cells, "path": cells, "split": "train", "label": cells})
    write_clips(table.assign(start=0.0, end=1.0), tmp_path / "clips.csv")
    assert read_clips(tmp_path / "clips.csv")["label"].tolist() == cells
    save_table(table, tmp_path, "t", caption="cells")
    with open(tmp_path / "t.csv", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == cells


def lying(header: object, claimed: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if claimed is None else claimed).to_bytes(8, "little") + text + bytes(64)


LIES = {
    "length of 2^63": lying({}, 2**63),
    "length past the end": lying({}, 10**6),
    "data past the end": lying({"features": {"dtype": "F16", "shape": [10**9], "data_offsets": [0, 2 * 10**9]}}),
    "shape of another size": lying({"features": {"dtype": "F16", "shape": [10**12], "data_offsets": [0, 64]}}),
    "no shape": lying({"features": {"dtype": "F16"}}),
    "negative": lying({"features": {"dtype": "F16", "shape": [-1], "data_offsets": [0, -2]}}),
    "deep": lying(b"[" * 50_000),
    "not text": lying(b"\xff\xfe\0"),
    "another tensor": lying({"f": {"dtype": "F16", "shape": [32], "data_offsets": [0, 64]}}),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_safetensors_headers_that_lie_are_refused(tmp_path, lie):
    store = make_store(tmp_path / "store", clips=2)
    shard = next((store.path / "shards").iterdir())
    shard.write_bytes(lie)
    with pytest.raises(StoreError, match=shard.name):
        FeatureStore.open(store.path).read()
    LiFT(CONFIG).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(lie)
    with pytest.raises(LiftError, match="model"):
        load_model(tmp_path / "model")


def test_an_index_of_very_many_rows_in_few_bytes_is_refused(tmp_path):
    store = make_store(tmp_path / "store", clips=2)
    many = pa.array(["a" * 100]).take(pa.array([0] * 10_000_000, pa.int32()))
    part = store.path / "index" / "000009-bomb.parquet"
    pq.write_table(
        pa.table({"clip_id": many, "shard": many, "row": pa.nulls(len(many), pa.int64())}), part
    )
    assert part.stat().st_size < 1_000_000
    with pytest.raises(StoreError, match="10000000 rows in"):
        FeatureStore.open(store.path)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "NaN", "[]", "\ud800"])
def test_headers_of_stores_that_are_none_are_refused(tmp_path, content):
    store = make_store(tmp_path / "store", clips=2)
    (store.path / "store.json").write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(StoreError, match="store.json"):
        FeatureStore.open(store.path)


LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "&a [*a]",
        "a: &a {b: *a}",
        "[" * 1000,
        "a: !!python/object/apply:os.system [touch run]",
        "a: 2001-99-99",
        "a: 0b",
        "? [a]\n: b",
        "? {a: b}\n: c",
    ],
)
def test_yaml_that_bursts_or_commands_is_refused(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(text)
    started = time.monotonic()
    try:
        assert len(repr(read_config("a.yaml"))) < 1000
    except InputError as error:
        assert str(error).startswith("a.yaml: ") and len(str(error)) < 1000
    assert time.monotonic() - started < 5 and not (tmp_path / "run").exists()


def test_aliases_of_a_sound_file_are_taken(tmp_path):
    (tmp_path / "a.yaml").write_text("model: &m {a: 1}\nother: {<<: *m, b: 2}\n")
    assert read_config(tmp_path / "a.yaml")["other"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("value", ["x'; import os; os.abort() #", '"""', "\\", "{{7*7}}", "\n1/0"])
def test_parameters_of_notebooks_are_text_and_never_code(value):
    notebook = load_notebook_node(str(sorted((ROOT / "nbs" / "paper").glob("*.ipynb"))[0]))
    filled = parameterize_notebook(notebook, {"profile": value})
    cell = next(c for c in filled.cells if "injected-parameters" in c.metadata.get("tags", []))
    names: dict[str, object] = {}
    exec(cell.source, names)
    assert names["profile"] == value


@pytest.mark.parametrize("field", ["profile", "gallery"])
@pytest.mark.parametrize(
    "value", ["x; touch run", "$(touch run)", "/", "../up", "a b", "`touch run`"]
)
def test_a_profile_whose_names_are_commands_is_refused(tmp_path, field, value):
    for folder in ("lift", "tools", "nbs", "config"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    names = {"profile": "p", "gallery": "runs/p/gallery", field: value}
    (tmp_path / "p.yaml").write_text(json.dumps({**names, "seed": 0, "notebooks": []}))
    command = [BIN / "snakemake", "--cores", "1", "--configfile", "p.yaml", "--nolock", "-n"]
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode and "stay in this folder" in result.stdout + result.stderr
    assert not (tmp_path / "run").exists()
