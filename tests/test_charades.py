"""Charades on a miniature copy."""

import pytest
from miniature import CHARADES_ACTIONS, make_charades, make_chirality_lists

from lift.data import charades
from lift.data.status import DatasetError


@pytest.fixture
def root(tmp_path):
    return make_charades(tmp_path / "charades")


def names(rows):
    return set(
        rows[["verb_forward", "verb_reverse", "group_noun"]].itertuples(index=False, name=None)
    )


def test_mined_groups_are_counted_by_action_instance(root):
    rows = charades.mine(root)
    assert names(rows) == {
        ("take", "put", "pillow"),
        ("open", "close", "door"),
        ("stand", "sit", "person"),
        ("turning on", "turning off", "light"),
    }
    assert len(rows) == 2 * 6 * 8 and set(rows["split"]) == {"train", "validation"}
    row = rows[rows["id"] == "TR000_12.1_16.6"].iloc[0]
    expected = ("putting a pillow somewhere", 0, "o027", "v016")
    assert (row["label"], row["chiral_label"], row["object_id"], row["verb_id"]) == expected
    expected = ("TR000", 12.1, 16.62, "c077")
    assert (row["id_base"], row["start_time"], row["end_time"], row["cls_id"]) == expected


def test_a_range_with_both_signs_is_left_out(root):
    path = root / "Charades_v1_train.csv"
    path.write_text(path.read_text().replace("c079 2.00 6.50", "c079 12.10 16.62", 1))
    rows = charades.mine(root)
    assert rows.attrs["contradictions"] == 1 and "TR000_12.1_16.6" not in set(rows["id"])


def test_ranges(root):
    clips = charades.chiral_clips(root)
    row = clips.set_index("clip_id").loc["TE000_12.1_16.6"]
    assert (row["path"], row["start"], row["end"]) == ("Charades_v1_480/TE000.mp4", 12.1, 16.6)
    expected = ("validation", "take / put: pillow", "put", "pillow")
    assert (row["split"], row["group"], row["verb"], row["noun"]) == expected


def test_the_authors_lists_win(root):
    make_chirality_lists(root, "charades")
    assert len(charades.chiral_clips(root)) == 5


def test_missing_videos_are_named(root):
    (root / "Charades_v1_480/TR000.mp4").unlink()
    clips = charades.chiral_clips(root)
    assert len(clips) == 88
    assert set(clips.attrs["missing"].values()) == {"Charades_v1_480/TR000.mp4"}
    status = charades.describe(root)
    assert not status.found
    assert status.clips == 88
    assert status.missing == ["videos of 8 clips, the first: Charades_v1_480/TR000.mp4"]


def test_unusable_actions_are_named_and_cost_nothing_else(root):
    path = root / "Charades_v1_train.csv"
    path.write_text(
        path.read_text().replace(
            CHARADES_ACTIONS, "c077 5.00 5.00;c999 1.00 2.00;c077;c077 1 x;c079 2.00 6.50", 1
        )
    )
    table = charades.read_annotations(root)
    assert table.attrs["unusable"] == {
        "Charades_v1_train.csv TR000 (c077 5.00 5.00)": "ends (5 s) where it starts (5 s) or before",
        "Charades_v1_train.csv TR000 (c999 1.00 2.00)": "class c999 is unknown",
        "Charades_v1_train.csv TR000 (c077)": "is not of the form class start end",
        "Charades_v1_train.csv TR000 (c077 1 x)": "is not of the form class start end",
    }
    assert table.loc[table["id_base"] == "TR000", "id"].tolist() == ["TR000_2.0_6.5"]
    assert charades.chiral_clips(root, rule="all").attrs["unusable"] == table.attrs["unusable"], (
        "mined lists keep the names"
    )


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("Charades_v1_mapping.txt", "c077 o027 v016\n", "", "class c077 has no verb or object"),
        (
            "Charades_v1_classes.txt",
            "c077 Putting a pillow somewhere",
            "c077",
            "line 4: expected a code and its text",
        ),
        (
            "Charades_v1_test.csv",
            "actions",
            "deeds",
            r"Charades_v1_test\.csv: lacks the column actions",
        ),
    ],
)
def test_broken_files_are_refused(root, name, old, new, told):
    path = root / name
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DatasetError, match=told):
        charades.mine(root)


def test_lists_with_windows_line_ends(root):
    before = charades.mine(root)
    for path in root.glob("*.*"):
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    assert charades.mine(root)["id"].tolist() == before["id"].tolist()


def test_an_absent_list(root):
    (root / "Charades_v1_objectclasses.txt").unlink()
    with pytest.raises(DatasetError, match="lacks Charades_v1_objectclasses.txt"):
        charades.mine(root)


def test_real_ranges_are_read(tmp_path):
    from lift.video import read_clip

    root = make_charades(tmp_path, clips=1, real=True)
    row = charades.chiral_clips(root, rule="all").iloc[0]
    assert read_clip(root / row["path"], 4, row["start"], row["end"]).shape == (4, 32, 32, 3)
