"""The clip table: what is accepted, what is refused and in which words, what a file keeps."""

import os

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lift.data.clips import (
    CLIP_COLUMNS,
    ClipTableError,
    check_clips,
    first_five,
    read_clips,
    require_clips,
    scored_split,
    write_clips,
)
from lift.io import InputError


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "clip_id": ["00123", "NA", "c"], "path": ["a.mp4", "b.mp4", "c, d.mp4"],
            "start": [None, 0.0, 1.5], "end": [None, 2.0, None],
            "split": ["train", "validation", "test"], "label": ["opening", "closing", "fermé"],
            "group": ["door", "door", None], "chiral_label": [1, 0, None],
            "verb": ["open", "close", None], "noun": ["door", "door", None],
            "participant": ["P01", None, "P02"],
        }
    )  # fmt: skip


def refused(table: pd.DataFrame) -> str:
    with pytest.raises(ClipTableError) as caught:
        check_clips(table)
    return str(caught.value)


def test_order_types_and_extra_columns(table):
    clips = check_clips(table[table.columns[::-1]].set_index(pd.Index([7, 7, 9])))
    assert clips.columns.tolist() == [*CLIP_COLUMNS, "participant"]
    assert clips.index.tolist() == [0, 1, 2]
    assert clips.chiral_label.dtype == "Int64"
    assert clips.start.dtype == float
    assert clips.end.dtype == float


def test_the_given_table_is_not_changed(table):
    before = table.copy()
    check_clips(table)
    pd.testing.assert_frame_equal(table, before)


def test_only_the_required_columns(table):
    clips = check_clips(table[["clip_id", "path", "split", "label"]])
    assert clips.columns.tolist() == ["clip_id", "path", "start", "end", "split", "label"]
    assert clips.start.isna().all() and clips.end.isna().all()


@pytest.mark.parametrize("column", ["clip_id", "path", "split", "label"])
def test_missing_column(table, column):
    assert f"lacks the column {column}" in refused(table.drop(columns=column))


def test_group_without_the_column_of_labels(table):
    assert "chiral_label" in refused(table.drop(columns="chiral_label"))


def test_empty(table):
    assert "no rows" in refused(table.iloc[:0])


def test_column_twice(table):
    assert "twice" in refused(pd.concat([table, table[["label"]]], axis=1))


@pytest.mark.parametrize(
    ("column", "row", "value", "words"),
    [
        ("clip_id", 1, "00123", "is duplicated"),
        ("clip_id", 1, None, "is empty"),
        ("clip_id", 0, 123, "must be text"),
        ("path", 2, "  ", "must be text"),
        ("split", 0, "val", "train, validation, test"),
        ("label", 1, 3, "must be text"),
        ("start", 1, "soon", "number of seconds"),
        ("start", 1, -1.0, "number of seconds"),
        ("end", 1, float("inf"), "number of seconds"),
        ("end", 1, 0.0, "later than start"),
        ("end", 2, 1.5, "later than start"),
        ("end", 0, 0.0, "later than start"),
        ("chiral_label", 0, 2, "0 or 1"),
        ("chiral_label", 0, 0.5, "0 or 1"),
        ("chiral_label", 0, "yes", "0 or 1"),
        ("chiral_label", 1, None, "although the row has a group"),
        ("noun", 1, 7, "must be text"),
    ],
)
def test_faults_name_column_row_value_and_remedy(table, column, row, value, words):
    table[column] = table[column].astype(object)
    table.at[row, column] = value
    message = refused(table)
    assert f"column {column}, row {row}" in message and words in message
    assert "value" in message and message.startswith("1 fault ")


def test_all_faults_come_at_once(table):
    message = refused(table.assign(split="dev", label=None, end=0.0))
    assert message.startswith("9 faults")
    assert sum(message.count(f"column {name}") for name in ("split", "label", "end")) == 9


def test_long_lists_are_cut(table):
    many = pd.concat([table.iloc[[0]]] * 300)
    message = refused(many)
    assert message.startswith("299 faults")
    assert "and 289 more" in message
    assert len(message.splitlines()) == 12


def test_round_trip(table, tmp_path):
    clips = check_clips(table)
    write_clips(clips, tmp_path / "new" / "clips.csv")
    again = read_clips(tmp_path / "new" / "clips.csv")
    pd.testing.assert_frame_equal(again, clips, check_dtype=False)
    assert again.clip_id.tolist() == ["00123", "NA", "c"] and again.chiral_label.dtype == "Int64"


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1)


@given(st.lists(TEXT, min_size=1, unique=True))
def test_any_identifier_survives(tmp_path_factory, names):
    names = [name for name in names if name.strip()] or ["x"]
    path = tmp_path_factory.mktemp("any") / "clips.csv"
    write_clips(
        pd.DataFrame({"clip_id": names, "path": "v.mp4", "split": "train", "label": "l"}), path
    )
    assert read_clips(path).clip_id.tolist() == names


def test_byte_order_mark_and_windows_lines(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_bytes("\ufeffclip_id,path,split,label\r\n007,a.mp4,train,fermé\r\n".encode())
    clips = read_clips(path)
    assert clips.clip_id.tolist() == ["007"] and clips.label.tolist() == ["fermé"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"clip_id,path,split,label\n", "no rows"),
        (b"clip_id;path;split;label\na;b;train;l\n", "separated by semicolons"),
        (b"clip_id\tpath\tsplit\tlabel\na\tb\ttrain\tl\n", "separated by tabs"),
        (b"clip_id, path, split, label, label\na,b,train,l,m\n", "has the column 'label' twice"),
        (b"clip_id,path,split,label\na,b,train,ferm\xe9\n", "UTF-8"),
        (b"clip_id,path,split,label\na,b,train,l\na,b,train,l,x,y\n", "is not a CSV table"),
        (b"clip_id,path,split,label\na,b,dev,l\n", "column split, row 2 "),
        (b"clip_id,path,split,label\na,b,train,open, close\n", "is not a CSV table"),
        (b"clip_id,path,split,label,label\na,b,train,l,m\n", "has the column 'label' twice"),
    ],
)
def test_faulty_files_are_named(tmp_path, content, words):
    path = tmp_path / "clips.csv"
    path.write_bytes(content)
    with pytest.raises(ClipTableError, match=words) as caught:
        read_clips(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "white", [" ", "\t", "\r", "\n", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\xa0"]
)
@pytest.mark.parametrize("name", ["{}a", "a{}b", "a{}"])
def test_white_space_in_a_name_comes_back(table, tmp_path, white, name):
    table = table.assign(clip_id=name.format(white) + table["clip_id"])
    write_clips(table, tmp_path / "clips.csv")
    assert read_clips(tmp_path / "clips.csv")["clip_id"].tolist() == table["clip_id"].tolist()


@pytest.mark.parametrize(
    "text",
    [
        "clip_id, path, split, label, start\n007, v.mp4, train, open, 1.5\n",
        "clip_id , path , split , label , start\n007 , v.mp4 , train , open , 1.5\n",
        "clip_id,\tpath,\tsplit,\tlabel,\tstart\r\n007,\tv.mp4,\ttrain,\topen,\t1.5\r\n",
        'clip_id, "path", split, label, start\n007, "v.mp4", train, "open", 1.5\n',
        "\ufeffclip_id, path, split, label, start,\n007, v.mp4, train , open , 1.5 ,\n",
    ],
)
def test_blanks_around_commas_do_not_count(tmp_path, text):
    (tmp_path / "clips.csv").write_bytes(text.encode())
    clips = read_clips(tmp_path / "clips.csv")
    assert list(clips.columns) == ["clip_id", "path", "start", "end", "split", "label"]
    assert clips.iloc[0].drop("end").tolist() == ["007", "v.mp4", 1.5, "train", "open"]


def test_a_comma_at_the_end_of_each_row_shifts_nothing(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("clip_id,path,split,label\na,b.mp4,train,l,\nc,d.mp4,train,l,\n")
    assert read_clips(path)[["clip_id", "path", "label"]].to_numpy().tolist() == [
        ["a", "b.mp4", "l"],
        ["c", "d.mp4", "l"],
    ]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        read_clips(tmp_path / "none.csv")


def test_a_faulty_table_leaves_the_file_alone(table, tmp_path):
    write_clips(table, tmp_path / "clips.csv")
    before = (tmp_path / "clips.csv").read_bytes()
    with pytest.raises(ClipTableError):
        write_clips(table.assign(split="dev"), tmp_path / "clips.csv")
    assert (tmp_path / "clips.csv").read_bytes() == before


def test_a_broken_write_leaves_the_file_alone(table, tmp_path, monkeypatch):
    write_clips(table, tmp_path / "clips.csv")
    before = (tmp_path / "clips.csv").read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_clips(table.iloc[:1], tmp_path / "clips.csv")
    assert (tmp_path / "clips.csv").read_bytes() == before
    assert os.listdir(tmp_path) == ["clips.csv"]


CHIRAL = ("group", "chiral_label")


def test_what_is_required_are_the_rows_that_have_the_first_column(table):
    rows = require_clips(table, CHIRAL)
    assert rows["clip_id"].tolist() == ["00123", "NA"] and rows["chiral_label"].tolist() == [1, 0]
    assert pd.api.types.is_integer_dtype(rows["chiral_label"])
    assert require_clips(table, ("label",))["clip_id"].tolist() == ["00123", "NA", "c"]
    both = require_clips(table, ("label",), two_sides=True)
    assert both["clip_id"].tolist() == ["00123", "c"], "no clip of the split validation"
    assert both["split"].tolist() == ["train", "test"]
    assert require_clips(table.drop(columns="split"), CHIRAL).shape[0] == 2, "no split asked for"
    assert rows.columns.tolist() == table.columns.tolist() and table["chiral_label"].isna().any()


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda t: t.drop(columns="group"),
            "clips of a probe lacks the column group; it has: clip",
        ),
        (lambda t: t.drop(columns=["group", "split"]), "lacks the column split, group"),
        (lambda t: t.assign(clip_id="a"), "has clips twice; keep one row per clip: a$"),
        (lambda t: t.assign(chiral_label=[1, 2, None]), "label other than 0 or 1; .*: NA$"),
        (lambda t: t.assign(chiral_label=[1, None, 0]), "no chiral_label for clips that .* NA$"),
        (lambda t: t.assign(chiral_label=["1", "0", None]), "other than 0 or 1; .*: 00123, NA$"),
        (lambda t: t.assign(group=None), "no clip of split 'train' that has a group"),
        (lambda t: t.iloc[:1], "no clip of split 'test' that has a group"),
    ],
)
def test_a_table_that_lacks_what_is_required_is_refused_in_the_error_of_who_asks(
    table, change, message
):
    with pytest.raises(InputError, match=message):
        require_clips(change(table), CHIRAL, "clips of a probe", True, InputError)


def test_validation_clips_are_scored_only_where_no_test_clip_is(table):
    assert scored_split(table) == "test"
    without = require_clips(table[table["split"] != "test"], ("label",), two_sides=True)
    assert without["clip_id"].tolist() == ["00123", "NA"]
    assert without["split"].tolist() == ["train", "test"]


def test_many_names_are_the_first_five_and_a_count():
    assert first_five(range(7)) == "0, 1, 2, 3, 4 and 2 more" and first_five("ab") == "a, b"
