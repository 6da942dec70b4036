"""Chiral groups: the authors' lists are read or refused by row, mining keeps its rules, both meet in one clip table."""

import os

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from miniature import make_chirality_lists

from lift.data import charades, epic, ssv2
from lift.data.chiral import (
    chiral_pairs,
    form_groups,
    group_id,
    noun_groups,
    parse_range,
    published_groups,
    range_id,
    read_lists,
    resolve_clips,
    sign_rows,
    statistics,
    write_lists,
)
from lift.data.status import (
    DatasetError,
    VideoFiles,
    check_root,
    examine,
    left_out,
    package_list,
    read_json,
    read_table,
)


@pytest.fixture
def lists(tmp_path):
    return make_chirality_lists(tmp_path, "ssv2")


def edit(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def actions(counts: dict[tuple[str, str, str], int]) -> pd.DataFrame:
    """Rows of (split, verb, noun) to number of clips."""
    return pd.DataFrame(
        [
            {
                "id": f"{split}-{verb}-{noun}-{i}",
                "split": split,
                "verb": verb,
                "group_noun": noun,
                "template": verb,
            }
            for (split, verb, noun), clips in counts.items()
            for i in range(clips)
        ]
    )


def test_lists_are_read_with_sign_verb_and_label(lists):
    table = read_lists(lists, "ssv2")
    assert table.groupby(["split", "chiral_label"]).size().to_dict() == {
        ("train", 0): 1,
        ("train", 1): 2,
        ("validation", 0): 1,
        ("validation", 1): 1,
    }
    up = table[table["id"] == "69713"].iloc[0]
    expected = (0, "Moving [something] up", "Moving [something] up")
    assert (up["chiral_label"], up["verb"], up["label"]) == expected
    assert table["group"].unique().tolist() == ["Moving [something] down / Moving [something] up"]


def test_lists_with_windows_line_ends_and_a_byte_order_mark(lists):
    expected = read_lists(lists, "ssv2")
    for path in lists.iterdir():
        path.write_bytes(
            b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        )
    pd.testing.assert_frame_equal(read_lists(lists, "ssv2"), expected)


def test_lists_without_the_clip_files(lists):
    for path in lists.glob("cia-*"):
        path.unlink()
    assert read_lists(lists, "ssv2")["label"].str.startswith("Moving [something]").all()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("id_reverse", "id_backward", r"train\.csv: lacks the column id_reverse"),
        ("noun_abstract", "thing", "lacks the column noun_abstract, noun or noun_class"),
        (
            "69707;69708",
            "69707;69707",
            r"row 2 \(3f20f09b\): column id_forward has an id twice \(69707\)",
        ),
        ("69707;69708", "69707;69713", r"row 2 \(3f20f09b\): has an id on both sides.*\(69713\)"),
        ("69707;69708", "69707;", r"row 2 \(3f20f09b\): column id_forward has an empty id"),
        (
            "69707;69708",
            "69707;69752",
            r"id 69752 is in both splits .*train\.csv row 2 and .*validation\.csv row 2",
        ),
        ("Moving [something] up", " ", r"row 2 \(3f20f09b\): column verb_reverse is empty"),
    ],
)
def test_a_faulty_list_is_refused_with_its_row(lists, old, new, told):
    edit(lists / "chiral_groups-ssv2-train.csv", old, new)
    with pytest.raises(DatasetError, match=told) as refused:
        read_lists(lists, "ssv2")
    assert "\n" not in str(refused.value)


def test_a_group_that_is_there_twice_is_refused(lists):
    path = lists / "chiral_groups-ssv2-train.csv"
    text = path.read_text()
    path.write_text(text + text.splitlines()[1].replace("697", "597") + "\n")
    with pytest.raises(DatasetError, match=r"row 3 \(3f20f09b\): column triplet_id is duplicated"):
        read_lists(lists, "ssv2")


def test_files_that_contradict_each_other_are_refused(lists):
    edit(lists / "cia-ssv2-train.csv", "1.0", "0.0")
    with pytest.raises(
        DatasetError,
        match=r"cia-ssv2-train\.csv: row 2 \(69707\): chiral_label '0.0', but .* row 2 says 1",
    ):
        read_lists(lists, "ssv2")


@pytest.mark.parametrize(
    ("old", "new"), [("Moving [something] up", "Moving [something] away"), (",something", ",thing")]
)
def test_a_group_that_is_another_in_the_other_list_is_refused(lists, old, new):
    edit(lists / "chiral_groups-ssv2-validation.csv", old, new)
    told = r"group 3f20f09b has other verbs .*groups-ssv2-train\.csv row 2 and chiral_groups-ssv2-validation\.csv row 2"
    with pytest.raises(DatasetError, match=told):
        read_lists(lists, "ssv2")


def test_lists_of_an_earlier_mining_do_not_stay(tmp_path, monkeypatch):
    counts = {
        (split, verb, "box"): 2 for split in ("train", "validation") for verb in ("open", "close")
    }
    rows = form_groups(sign_rows(actions(counts), chiral_pairs("epic")), "epic")
    write_lists(rows, tmp_path, "epic")
    other = tmp_path / "chiral_groups-ssv2-train.csv"
    other.touch()
    write_lists(rows[rows["split"] == "validation"], tmp_path, "epic")
    names = {"chiral_groups-epic-validation.csv", "cia-epic-validation.csv", other.name}
    assert {path.name for path in tmp_path.iterdir()} == names
    before = (tmp_path / "cia-epic-validation.csv").read_text()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_lists(rows[rows["split"] == "validation"], tmp_path, "epic")
    assert (tmp_path / "cia-epic-validation.csv").read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == names, "nothing half written"


def test_a_clip_file_with_a_clip_twice_is_refused(lists):
    path = lists / "cia-ssv2-train.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    with pytest.raises(DatasetError, match=r"cia-ssv2-train\.csv: row 5 \(69707\): is duplicated"):
        read_lists(lists, "ssv2")


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01\x02", "triplet_id\ncaf\xe9".encode("latin-1"), b'a,b\n"1,2\n3']
)
def test_a_broken_list_is_refused_in_one_line(lists, content):
    (lists / "chiral_groups-ssv2-train.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=r"chiral_groups-ssv2-train\.csv: ") as refused:
        read_lists(lists, "ssv2")
    assert "\n" not in str(refused.value)


def test_a_folder_without_lists_and_a_file_for_a_folder(tmp_path):
    with pytest.raises(DatasetError, match="lacks chiral_groups-epic-train.csv"):
        read_lists(tmp_path, "epic")
    (tmp_path / "root").write_text("")
    with pytest.raises(DatasetError, match="is a file; give the folder"):
        read_lists(tmp_path / "root", "epic")
    with pytest.raises(DatasetError, match="no such folder"):
        check_root(tmp_path / "absent")


def test_one_clip_in_two_groups_gets_two_clip_ids(tmp_path):
    for name, triplet, noun in (("a", "11111111", "pillow"), ("b", "22222222", "towel")):
        make_chirality_lists(tmp_path / name, "charades")
        for path in (tmp_path / name / "chirality-in-action").iterdir():
            path.write_text(path.read_text().replace("a9be73ec", triplet).replace("pillow", noun))
    folder, other = (tmp_path / name / "chirality-in-action" for name in "ab")
    for path in folder.iterdir():
        path.write_text(
            path.read_text()
            + "".join(line + "\n" for line in (other / path.name).read_text().splitlines()[1:])
        )
    table = read_lists(folder, "charades")
    clips = resolve_clips(
        table, tmp_path, lambda id: {"path": "v.mp4", "start": 0, "end": 1, "looked_for": "v.mp4"}
    )
    assert clips["clip_id"].is_unique and len(clips) == 10 and clips["group"].nunique() == 2
    assert "TE000_2.0_6.5" in set(clips["clip_id"])
    assert "TE000_2.0_6.5@22222222" in set(clips["clip_id"])


def test_groups_of_one_name_stay_two(tmp_path):
    folder = make_chirality_lists(tmp_path, "charades")
    for path in folder.glob("chiral_groups-*"):
        line = (
            path.read_text()
            .splitlines()[1]
            .replace("a9be73ec", "22222222")
            .replace("TR00", "TR10")
            .replace("TE00", "TE10")
        )
        path.write_text(path.read_text() + line + "\n")
    names = set(read_lists(folder, "charades")["group"])
    assert names == {"take / put: pillow (a9be73ec)", "take / put: pillow (22222222)"}


@pytest.mark.parametrize(
    ("adapter", "dataset"), [(ssv2, "ssv2"), (epic, "epic"), (charades, "charades")]
)
def test_what_is_written_is_what_is_read(tmp_path, adapter, dataset):
    counts = {
        (split, verb, "box"): 3 for split in ("train", "validation") for verb in ("open", "close")
    }
    rows = form_groups(sign_rows(actions(counts), chiral_pairs("epic")), dataset)
    written = write_lists(rows, tmp_path, dataset)
    assert {path.name for path in written} == {
        f"{kind}-{dataset}-{split}.csv"
        for kind in ("chiral_groups", "cia")
        for split in ("train", "validation")
    }
    read = read_lists(tmp_path, dataset)
    expected = set(
        rows[["id", "split", "chiral_triplet_id", "chiral_label"]].itertuples(
            index=False, name=None
        )
    )
    assert (
        set(read[["id", "split", "triplet_id", "chiral_label"]].itertuples(index=False, name=None))
        == expected
    )


def test_an_id_that_would_break_the_list_is_refused(tmp_path):
    rows = actions({("train", verb, "box"): 2 for verb in ("open", "close")})
    rows.loc[0, "id"] = "a;b"
    with pytest.raises(DatasetError, match="contains ';'"):
        write_lists(form_groups(sign_rows(rows, chiral_pairs("epic")), "epic"), tmp_path, "epic")
    assert not list(tmp_path.iterdir())


def test_ids_with_spaces_and_ampersands_live(tmp_path):
    rows = actions({("train", verb, "box"): 2 for verb in ("open", "close")})
    rows.loc[0, "id"] = 'Pay & [it], "now" é'
    write_lists(form_groups(sign_rows(rows, chiral_pairs("epic")), "epic"), tmp_path, "epic")
    assert 'Pay & [it], "now" é' in set(read_lists(tmp_path, "epic", ["train"])["id"])


def test_a_group_needs_both_signs_in_every_split_and_enough_clips():
    counts = {
        (split, verb, noun): 5
        for split in ("train", "validation")
        for verb in ("open", "close")
        for noun in ("a", "b", "c")
    }
    counts["train", "close", "b"] = 0
    counts["validation", "close", "c"] = 1
    rows = sign_rows(actions(counts), chiral_pairs("epic"))
    assert set(form_groups(rows, "epic")["group_noun"]) == {"a", "c"}
    assert set(form_groups(rows, "epic", clips_per_class=2)["group_noun"]) == {"a"}
    with pytest.raises(DatasetError, match="no chiral group"):
        form_groups(rows, "epic", clips=11)


def test_twice_annotated_is_one_clip_and_a_contradiction_none():
    rows = actions({("train", verb, "a"): 3 for verb in ("open", "close")})
    rows = pd.concat([rows, rows.iloc[[0]], rows.iloc[[1]].assign(verb="close")])
    formed = form_groups(sign_rows(rows, chiral_pairs("epic")), "epic")
    assert len(formed) == 5 and formed.attrs["contradictions"] == 1 and formed["id"].is_unique


def test_alternatives_take_the_name_of_the_first():
    pairs = pd.DataFrame({"forward": ["take|grasp"], "reverse": ["put"]})
    rows = sign_rows(
        actions({("train", verb, "cup"): 1 for verb in ("take", "grasp", "put", "hold")}), pairs
    )
    assert rows["verb_forward"].unique().tolist() == ["take"]
    assert rows["chiral_label"].tolist() == [1, 1, 0]


def test_pairs_and_nouns_can_be_extended(tmp_path):
    own = tmp_path / "pairs.csv"
    own.write_text(package_list("chiral_pairs.csv").read_text() + "epic,fill,empty\n")
    assert len(chiral_pairs("epic", own)) == len(chiral_pairs("epic")) + 1
    nouns = tmp_path / "nouns.csv"
    nouns.write_text("dataset,group,noun\nepic,vessel,cup\nssv2,x,y\n")
    assert noun_groups("epic", nouns) == {"cup": "vessel"}
    with pytest.raises(DatasetError, match="has no pair for the data set 'kitchen'"):
        chiral_pairs("kitchen", own)


def test_package_lists_are_sound():
    for dataset, groups in (("ssv2", 16), ("epic", 55), ("charades", 26)):
        known, pairs = published_groups(dataset), chiral_pairs(dataset)
        assert len(known) == groups
        assert known["triplet_id"].is_unique
        assert known["triplet_id"].str.fullmatch("[0-9a-f]{8}").all()
        named = set(zip(pairs["forward"].str.split("|").str[0], pairs["reverse"], strict=True))
        assert set(zip(known["forward"], known["reverse"], strict=True)) <= named
    expected = {"object", "bottle", "drawer", "book", "door", "purse"}
    assert set(noun_groups("ssv2").values()) == expected


def test_group_ids_do_not_change():
    assert group_id("epic", "open", "close", "fridge") == "9df4cc18"
    assert group_id("epic", "open", "close", "bin") != group_id("epic", "open", "close", "fridge")


@given(st.integers(0, 40000), st.integers(1, 600))
def test_a_range_id_says_its_range(start, length):
    video, first, last = parse_range(
        range_id("P01/videos/P01_11", start / 10, (start + length) / 10)
    )
    assert (video, first, last) == ("P01/videos/P01_11", start / 10, (start + length) / 10)


def test_range_ids_are_the_authors():
    assert range_id("P01/videos/P01_11", 1.56, 2.45) == "P01/videos/P01_11_1.6_2.4"
    assert range_id("YSKX3", 12.1, 16.62) == "YSKX3_12.1_16.6"


@pytest.mark.parametrize(
    "id", ["P01_11", "P01_11_a_b", "P01_11_2.0_2.0", "P01_11_3.0_2.0", "", "_1_2"]
)
def test_an_id_that_is_no_range(id):
    with pytest.raises(ValueError):
        parse_range(id)


def test_statistics_of_table_1(lists):
    table = read_lists(lists, "ssv2")
    assert statistics(table).to_dict("records") == [
        {"groups": 1, "videos_per_group": 5.0, "train": 3, "test": 2}
    ]
    with pytest.raises(DatasetError, match="no column group"):
        statistics(table.drop(columns="group"))


def test_a_folder_is_listed_once(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.webm").touch()
    videos = VideoFiles(tmp_path)
    assert videos.find(["b/1.webm", "a/1.webm"]) == "a/1.webm"
    monkeypatch.setattr("os.listdir", lambda path: pytest.fail("listed again"))
    assert videos.find(["a/2.webm"]) is None and videos.find(["b/2.webm"]) is None


def test_read_table_keeps_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,noun\n007,None\n1e5,NA\n")
    assert read_table(path, ["id"]).values.tolist() == [["007", "None"], ["1e5", "NA"]]
    path.write_text("id,noun\n1,a,\n2,,\n3\n")
    assert read_table(path, ["id"]).to_numpy().tolist() == [["1", "a"], ["2", ""], ["3", ""]]
    for surplus in (
        "id,noun\n1,a cup, red\n",
        "id,noun\n1,a cup, red\n2,b\n",
        "id,noun\n1,a\n2,b,c\n",
    ):
        path.write_text(surplus)
        with pytest.raises(DatasetError, match=r"t\.csv: is not a CSV table"):
            read_table(path, ["id"])
    path.write_bytes(b"id\n1\ncaf\xe9\n")
    with pytest.raises(DatasetError, match=r"t\.csv: line 3 is not UTF-8"):
        read_table(path, ["id"])


def test_read_json_refuses_what_it_cannot_use(tmp_path):
    path = tmp_path / "t.json"
    for text, told in (
        ('[{"id":', "line 1 is not JSON"),
        ("{}", "holds a dict, expected a list"),
        ("", "is not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(DatasetError, match=told):
            read_json(path, list)


def test_status_says_what_to_do(tmp_path):
    about = {
        "name": "X", "lists": ("train.csv", "val.csv"), "layout": "a\nb", "source": "the site",
        "licence": "MIT", "size": "1 GB",
    }  # fmt: skip

    def make_clips(root):
        raise DatasetError(f"{root}: lacks train.csv")

    status = examine(tmp_path, make_clips, **about)
    assert not status.found and status.missing == [f"{tmp_path}: lacks train.csv"]
    assert all(
        text in str(status) for text in ("lacks train.csv", "the site", "MIT", "1 GB", "    b")
    )
    table = pd.DataFrame({"clip_id": ["1", "2"], "split": ["train", "test"]})
    table.attrs = {"missing": {}, "unusable": {}}
    complete = examine(tmp_path, lambda root: table, **about)
    assert complete.found and str(complete) == f"X: found, 2 clips in {tmp_path}"
    table.attrs = {"missing": {"2": "2.webm"}, "unusable": {}}
    assert left_out(table) == "2 clips; 1 without a video (2); 0 unusable rows"
