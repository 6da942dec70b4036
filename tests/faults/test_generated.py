"""Clip tables and configurations that nobody would write: accepted, or refused by the package's own error."""

import os
from collections.abc import Callable

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from lift.config import read_config
from lift.data.clips import check_clips, read_clips, write_clips
from lift.extraction import extract
from lift.io import InputError, LiftError
from lift.model import LiFTConfig
from lift.training import TrainingConfig, split_recipe

COLUMNS = ("clip_id", "path", "start", "end", "split", "label", "group", "chiral_label", "verb")
ODD = ("", "a", "train", "1", "-1", "nan", "inf", "1e400", '"', "=1+1", "../x", "\ufeff", "\0")
CELLS = st.sampled_from(ODD) | st.text(max_size=6) | st.floats(width=16).map(str)
ROWS = {"clip_id": "c", "path": "v.mp4", "start": "0", "end": "1", "split": "train", "label": "x"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELLS, inner, max_size=3),
    max_leaves=6,
)
FIELDS = (*LiFTConfig.__dataclass_fields__, *TrainingConfig.__dataclass_fields__, "no_field")


def many(count: int, test: Callable[[], None]) -> None:
    """Run a test of hypothesis `count` times; LIFT_FAULTS_SEED gives other examples."""
    options = {"max_examples": count, "derandomize": False, "database": None, "deadline": None}
    quick = settings(**options, suppress_health_check=list(HealthCheck))
    seed(int(os.environ.get("LIFT_FAULTS_SEED", 0)))(quick(test))()


def accepted(call: Callable[[], object]) -> bool:
    """Whether a call takes its input; else it has to refuse in an error that a person can read."""
    try:
        call()
    except LiftError as error:
        line = " ".join(str(error).split())  # as the command line prints it
        assert line and "Traceback" not in line
        return False
    return True


def counts(in_all: int) -> pytest.MarkDecorator:
    """A fortieth of the examples in `make test`, all of them, 10,000 in sum, in `make faults`."""
    all_of_them = pytest.param(in_all, marks=pytest.mark.slow_faults)
    return pytest.mark.parametrize("count", [in_all // 40, all_of_them], ids=["few", "many"])


@st.composite
def tables(draw) -> pd.DataFrame:
    """A sound table of one to three rows in which some cells, columns or types are changed."""
    rows = [{**ROWS, "clip_id": f"c{n}"} for n in range(draw(st.integers(1, 3)))]
    for row in rows:
        row.update(draw(st.dictionaries(st.sampled_from(COLUMNS), CELLS, max_size=2)))
    table = pd.DataFrame(rows)
    if draw(st.integers(0, 9)) == 0:
        table = table.drop(columns=draw(st.sampled_from([*table.columns])))
    if draw(st.integers(0, 4)) == 0:
        column = draw(st.sampled_from([*table.columns]))
        table[column] = pd.Series([draw(VALUES) for _ in rows], dtype=object)
    return table


@counts(1500)
def test_generated_tables_are_taken_or_refused(tmp_path, count):
    taken = []

    @given(tables())
    def one(table: pd.DataFrame) -> None:
        def write_and_read() -> None:
            write_clips(table, tmp_path / "clips.csv")
            again, checked = read_clips(tmp_path / "clips.csv"), check_clips(table)
            for column in ("clip_id", "path", "split", "label"):
                assert again[column].tolist() == checked[column].tolist()

        taken.append(accepted(write_and_read))

    many(count, one)
    assert 0.05 < sum(taken) / len(taken) < 0.95


@counts(2500)
def test_generated_csv_files_are_taken_or_refused(tmp_path, count):
    line = st.lists(CELLS, min_size=1, max_size=8).map(",".join)
    head = st.just("clip_id,path,start,end,split,label") | line

    @given(head, st.lists(line, max_size=4), st.sampled_from(["utf-8", "utf-16", "latin-1"]))
    def one(first: str, lines: list[str], code: str) -> None:
        text = "\n".join([first, *lines])
        (tmp_path / "clips.csv").write_bytes(text.encode(code, errors="ignore"))
        accepted(lambda: read_clips(tmp_path / "clips.csv"))

    many(count, one)


class NoBackbone:
    """Fails if extraction gets as far as to ask it anything."""

    def __getattr__(self, name: str) -> object:
        raise InputError("the table was taken")


@counts(2000)
def test_extraction_takes_or_refuses_generated_tables_and_numbers(tmp_path, count):
    number = st.integers(-2, 3) | st.floats() | st.none() | CELLS

    @given(tables(), st.dictionaries(st.sampled_from(["frames", "workers", "timeout"]), number))
    def one(table: pd.DataFrame, numbers: dict) -> None:
        assert not accepted(lambda: extract(table, tmp_path / "store", NoBackbone(), **numbers))

    many(count, one)
    assert not (tmp_path / "store").exists()


@counts(4000)
def test_generated_configurations_are_taken_or_refused(tmp_path, count):
    text = st.text(alphabet="ab:-[]{}&*!|>'\"#,?%@\n 01.<=~", max_size=30)
    fields = st.dictionaries(st.sampled_from(FIELDS) | CELLS, VALUES, max_size=4)

    @given(fields, text)
    def one(values: dict, written: str) -> None:
        accepted(lambda: split_recipe(values, 8))
        (tmp_path / "a.yaml").write_text(written)
        accepted(lambda: split_recipe(read_config(tmp_path / "a.yaml"), 8))

    many(count, one)
