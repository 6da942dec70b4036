"""Makers of small, complete copies of the real data sets: annotations in the true format, videos of a few frames."""

import csv
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lift.video import write_video

SSV2_TEMPLATES = [
    "Closing [something]",
    "Moving [something] down",
    "Moving [something] up",
    "Opening [something]",
    "Holding [something]",
    "Taking [one of many similar things on the table]",
    "Moving [something] and [something] closer to each other",
    "Moving [something] and [something] away from each other",
]
EPIC_HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
).split(",")
EPIC_VERBS = {"open": 3, "close": 4, "pick-up": 0, "put-down": 1, "wash": 2}
EPIC_VERB_KEYS = ["take", "put", "wash", "open", "close"]
EPIC_NOUNS = {"tap": 0, "spoon": 1, "plate": 2, "door": 3}
EPIC_NOUN_KEYS = ["tap", "spoon", "plate", "cupboard"]
CHARADES_HEADER = (
    "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length".split(
        ","
    )
)
CHARADES_CLASSES = [  # code, text, object, verb
    ("c006", "Closing a door", "o008", "v001"),
    ("c008", "Opening a door", "o008", "v012"),
    ("c076", "Holding a pillow", "o027", "v008"),
    ("c077", "Putting a pillow somewhere", "o027", "v016"),
    ("c079", "Taking a pillow from somewhere", "o027", "v023"),
    ("c104", "Turning on a light", "o021", "v027"),
    ("c105", "Turning off a light", "o021", "v027"),
    ("c151", "Someone is going from standing to sitting", "o000", "v018"),
    ("c154", "Someone is standing up from somewhere", "o000", "v022"),
]
CHARADES_VERBS = {
    "v001": "close", "v008": "hold", "v012": "open", "v016": "put", "v018": "sit", "v022": "stand",
} | {"v023": "take", "v027": "turn"}  # fmt: skip
CHARADES_OBJECTS = {"o000": "None", "o008": "door", "o021": "light", "o027": "pillow"}
CHARADES_ACTIONS = (
    "c077 12.10 16.62;c079 2.00 6.50;c104 0.00 3.00;c105 20.00 23.10;c151 8.00 9.50;c154 25.00 27.00;c076 2.00 16.00;"
    "c008 1.00 2.25;c006 3.00 4.00"
)


def write_csv(path: Path, header: list[str], rows: Iterable[Iterable[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


def make_video(
    path: Path, seconds: float, rate: float, codec: str = "libx264", real: bool = True
) -> None:
    """A grey ramp of 32 x 32 pixels; an empty file where `real` is false (a clip table opens no video)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not real:
        path.touch()
        return
    count = round(seconds * rate)
    frames = (np.full((32, 32, 3), 255 * i // max(count - 1, 1), np.uint8) for i in range(count))
    write_video(path, frames, rate, codec)


def make_ssv2(root: Path, clips: int = 2, real: bool = False) -> Path:
    """Something-Something V2: `clips` a template and noun (pen, drawer, a bottle) in training, half in validation."""
    classes = {
        template.replace("[", "").replace("]", ""): str(i)
        for i, template in enumerate(sorted(SSV2_TEMPLATES))
    }
    (root / "labels").mkdir(parents=True)
    (root / "labels/labels.json").write_text(json.dumps(classes))
    number = 69700
    for split, count in (("train", clips), ("validation", max(1, clips // 2))):
        entries = []
        for template in SSV2_TEMPLATES:
            for noun in ["pen", "drawer", "a bottle"] * count:
                number += 1
                places = template.count("[")
                label = template.replace("[something]", noun).replace(
                    "[one of many similar things on the table]", noun
                )
                entries.append(
                    {
                        "id": str(number),
                        "label": label.lower(),
                        "template": template,
                        "placeholders": [noun] * places,
                    }
                )
                make_video(
                    root / f"20bn-something-something-v2/{number}.webm", 2, 12, "libvpx-vp9", real
                )
        (root / f"labels/{split}.json").write_text(json.dumps(entries))
    (root / "labels/test.json").write_text(json.dumps([{"id": "1420"}]))
    return root


def _timestamp(seconds: float) -> str:
    return f"{int(seconds // 3600):02d}:{int(seconds // 60) % 60:02d}:{seconds % 60:05.2f}"


def make_epic(root: Path, clips: int = 6, real: bool = False, narrated: bool = True) -> Path:
    """EPIC-KITCHENS-100: long videos (50 and 59.94 frames a second); `clips` a verb, noun and split, a second each."""
    dropped = () if narrated else ("narration", "verb", "noun", "all_nouns")
    header = [name for name in EPIC_HEADER if name not in dropped]
    for split, participant, video, rate in (
        ("train", "P01", "P01_11", 59.94),
        ("validation", "P02", "P02_101", 50),
    ):
        rows, start = [], 0.0
        for verb, verb_class in EPIC_VERBS.items():
            for noun in ("door", "plate"):
                for _ in range(clips):
                    stop = start + 0.89
                    row = [
                        f"{video}_{len(rows)}", participant, video, _timestamp(start) + "0",
                        _timestamp(start), _timestamp(stop),
                    ]  # fmt: skip
                    row += [
                        int(start * rate) + 1, int(stop * rate), f"{verb.replace('-', ' ')} {noun}",
                        verb, verb_class, noun,
                    ]  # fmt: skip
                    row += [EPIC_NOUNS[noun], str([noun]), str([EPIC_NOUNS[noun]])]
                    rows.append(
                        [
                            cell
                            for name, cell in zip(EPIC_HEADER, row, strict=True)
                            if name in header
                        ]
                    )
                    start += 1
        write_csv(root / f"EPIC_100_{split}.csv", header, rows)
        make_video(
            root / f"{participant}/videos/{video}.MP4", start if real else 0, rate, real=real
        )
    for kind, keys in (("verb", EPIC_VERB_KEYS), ("noun", EPIC_NOUN_KEYS)):
        rows = [(number, key, str([key]), "any") for number, key in enumerate(keys)]
        write_csv(
            root / f"EPIC_100_{kind}_classes.csv", ["id", "key", "instances", "category"], rows
        )
    return root


def make_charades(root: Path, clips: int = 6, real: bool = False) -> Path:
    """Charades: `clips` videos of 30 seconds a split, each with every action, and one without any."""
    texts = {
        "classes": [f"{code} {text}" for code, text, _, _ in CHARADES_CLASSES],
        "mapping": [f"{code} {noun} {verb}" for code, _, noun, verb in CHARADES_CLASSES],
        "verbclasses": [f"{code} {name}" for code, name in CHARADES_VERBS.items()],
        "objectclasses": [f"{code} {name}" for code, name in CHARADES_OBJECTS.items()],
    }
    root.mkdir(parents=True, exist_ok=True)
    for name, lines in texts.items():
        (root / f"Charades_v1_{name}.txt").write_text("\n".join(lines) + "\n")
    for split in ("train", "test"):
        rows = []
        for number in range(clips):
            video = f"{split[:2].upper()}{number:03d}"
            rows.append(
                [
                    video, "GVGA", "Bedroom", 6, 7, "Yes", "A person, a pillow.", "pillow;door", "",
                    CHARADES_ACTIONS, 30.5,
                ]
            )  # fmt: skip
            make_video(root / f"Charades_v1_480/{video}.mp4", 30, 12, real=real)
        rows.append(
            [
                f"{split[:2].upper()}XXX", "GVGA", "Bedroom", 6, 7, "Yes", "Nothing.", "", "", "",
                30.5,
            ]
        )  # fmt: skip
        write_csv(root / f"Charades_v1_{split}.csv", CHARADES_HEADER, rows)
    return root


def make_ucf101(root: Path, real: bool = False) -> Path:
    """UCF101: two classes, three splits, avi files; lists with Windows line ends, as they come."""
    classes = ["ApplyEyeMakeup", "Archery"]
    root.mkdir(parents=True, exist_ok=True)
    (root / "classInd.txt").write_bytes(
        b"".join(f"{i} {name}\r\n".encode() for i, name in enumerate(classes, 1))
    )
    for split in (1, 2, 3):
        for part, group in (("train", 7 + split), ("test", split)):
            lines = []
            for number, name in enumerate(classes, 1):
                for clip in (1, 2):
                    video = f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi"
                    lines.append(f"{video} {number}\r\n" if part == "train" else f"{video}\r\n")
                    make_video(root / "UCF-101" / video, 1, 25, "mpeg4", real)
            (root / f"{part}list{split:02d}.txt").write_bytes("".join(lines).encode())
    return root


def make_hmdb51(
    root: Path, real: bool = False, classes: Iterable[str] = ("brush_hair", "wave")
) -> Path:
    """HMDB51: some classes, names with brackets, `&`, `!` and spaces, and one video that the split does not use."""
    names = [
        "April_09_u_nm_np1_ba_goo_0.avi",
        "Pay & [Brush] it!_nm_np1_fr_med_1.avi",
        "(1)_f_cm_np1_ri_bad_2.avi",
    ]
    root.mkdir(parents=True, exist_ok=True)
    for label in classes:
        for name in names:
            make_video(root / label / name, 1, 30, "mpeg4", real)
        lines = (f"{name} {part} \n" for name, part in zip(names, (1, 2, 0), strict=True))
        (root / f"{label}_test_split1.txt").write_text("".join(lines))
    return root


def make_kinetics(root: Path, real: bool = False, more: int = 0) -> Path:
    """Kinetics-400: train and val lists; one class folder with underscores, one with spaces, one video absent.

    `more` clips a split of a second temporal class, and as many of a class that is not.
    """
    header = ["label", "youtube_id", "time_start", "time_end", "split"]
    for split, key in (("train", "t"), ("val", "v")):
        rows = [
            ("ski jumping", f"-{key}_aaaaaaa-", 10, 20, split),
            ("abseiling", f"{key}bbbbbbbbbb", 0, 10, split),
        ]
        for n in range(more):
            rows += [
                ("wrestling", f"{key}w{n:09d}", n, n + 10, split),
                ("abseiling", f"{key}d{n:09d}", n, n + 10, split),
            ]
        for label, name, start, end, _ in rows:
            folder = label.replace(" ", "_") if split == "train" else label
            make_video(
                root / split / folder / f"{name}_{start:06d}_{end:06d}.mp4", 1, 25, real=real
            )
        rows.append(("vault", f"{key}cccccccccc", 3, 13, split))
        write_csv(root / f"{split}.csv", header, rows)
    return root


def make_chirality_lists(
    root: Path, dataset: str = "ssv2", ids: dict[tuple[str, int], list[str]] | None = None
) -> Path:
    """One group in the columns of the authors, in `root/chirality-in-action`; `ids` by split and chiral label."""
    details = {
        "ssv2": (
            "3f20f09b", "Moving [something] down", "Moving [something] up", "noun_abstract",
            "something", "",
        ),
        "epic": ("ecff8160", "pick-up", "put-down", "noun_class", "plate", " plate"),
        "charades": ("a9be73ec", "take", "put", "noun", "pillow", " pillow"),
    }  # fmt: skip
    examples = {
        "ssv2": {
            ("train", 1): ["69707", "69708"], ("train", 0): ["69713"], ("validation", 1): ["69752"],
            ("validation", 0): ["69755"],
        },
        "epic": {
            ("train", 1): ["P01/videos/P01_11_30.0_30.9", "P01/videos/P01_11_31.0_31.9"],
            ("train", 0): ["P01/videos/P01_11_42.0_42.9"],
            ("validation", 1): ["P02/videos/P02_101_30.0_30.9"],
            ("validation", 0): ["P02/videos/P02_101_42.0_42.9"],
        },
        "charades": {
            ("train", 1): ["TR000_2.0_6.5", "TR001_2.0_6.5"], ("train", 0): ["TR000_12.1_16.6"],
            ("validation", 1): ["TE000_2.0_6.5"], ("validation", 0): ["TE000_12.1_16.6"],
        },
    }  # fmt: skip
    triplet, forward, reverse, noun_column, noun, suffix = details[dataset]
    ids = ids or examples[dataset]
    folder = root / "chirality-in-action"
    for split in ("train", "validation"):
        sides = [ids[split, 1], ids[split, 0]]
        header = [
            "triplet_id", "id_forward", "id_reverse", "verb_forward", "verb_reverse", noun_column,
        ]  # fmt: skip
        row = [triplet, ";".join(sides[0]), ";".join(sides[1]), forward, reverse, noun]
        write_csv(folder / f"chiral_groups-{dataset}-{split}.csv", header, [row])
        rows = [
            (id, f"{verb}{suffix}", float(1 - i), triplet)
            for i, verb in enumerate((forward, reverse))
            for id in sides[i]
        ]
        write_csv(
            folder / f"cia-{dataset}-{split}.csv",
            ["id", "template", "chiral_label", "chiral_triplet_id"],
            rows,
        )
    return folder


def make_diving48(root: Path, real: bool = False) -> Path:
    """Diving48: two classes, lists of version 2."""
    vocabulary = [["Back", "15som", "05Twis", "FREE"], ["Forward", "25som", "NoTwis", "PIKE"]]
    root.mkdir(parents=True, exist_ok=True)
    (root / "Diving48_vocab.json").write_text(json.dumps(vocabulary))
    for split, clips in (("train", 6), ("test", 4)):
        names = [f"{split}_{number:05d}" for number in range(clips)]
        listed = [
            {"vid_name": name, "label": number % 2, "start_frame": 0, "end_frame": 24}
            for number, name in enumerate(names)
        ]
        (root / f"Diving48_V2_{split}.json").write_text(json.dumps(listed))
        for name in names:
            make_video(root / "rgb" / f"{name}.mp4", 1, 25, real=real)
    return root


def make_all(root: Path, real: bool = True) -> Path:
    """Every data set in its folder below `root`, as `LIFT_DATA` wants them; videos of a few frames (about 10 MB, 30 s)."""
    make_ssv2(root / "ssv2", clips=1, real=real)
    make_epic(root / "epic", real=real)
    make_charades(root / "charades", real=real)
    make_kinetics(root / "kinetics400", real=real, more=4)
    make_ucf101(root / "ucf101", real=real)
    make_hmdb51(root / "hmdb51", real=real, classes=("brush_hair", "wave", "sit", "stand"))
    make_diving48(root / "diving48", real=real)
    return root


if __name__ == "__main__":
    print(make_all(Path(sys.argv[1])))
