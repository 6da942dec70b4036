"""Every command of the README is run, in its order, in a folder of its own."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from miniature import make_epic

from lift.video import write_video

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.S)
COMMANDS = [
    line.split("#")[0].strip()
    for language, block in BLOCKS
    if not language
    for line in block.splitlines()
    if line.strip()
]
INLINE = re.findall(r"`((?:lift|make|pip) [^`]+)`", README)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A user's folder: two videos, and a clip table of a few clips."""
    folder = tmp_path_factory.mktemp("readme")
    noise = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
    for name, codec in (("some/video.mp4", "libx264"), ("another/video.webm", "libvpx-vp9")):
        (folder / name).parent.mkdir()
        write_video(folder / name, noise, codec=codec)
    lift("synth rendered --clips 2 --test-clips 1 --size 64", folder)
    table = pd.read_csv(folder / "rendered" / "clips.csv")
    table = table[table["group"].isin(sorted(table["group"].unique())[:2])]
    table.assign(path="rendered/" + table["path"]).to_csv(folder / "clips.csv", index=False)
    make_epic(folder / "data" / "epic")
    shutil.copytree(folder / "data" / "epic", folder / "annotations")
    return folder


def lift(arguments: str, folder: Path) -> None:
    command = [Path(sys.executable).parent / "lift", *shlex.split(arguments)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, f"lift {arguments}\n{result.stderr}"


def test_lift_commands_run_in_their_order(folder):
    commands = [command for command in [*COMMANDS, *INLINE] if command.startswith("lift ")]
    assert len(commands) >= 6
    for command in commands:
        lift(command.removeprefix("lift "), folder)
    assert (folder / "results" / "summary.json").is_file()
    assert (folder / "first" / "opposites.png").is_file()
    videos = list((folder / "first" / "videos").glob("*.mp4"))
    assert len(pd.read_csv(folder / "first" / "opposites.csv")) == len(videos) >= 26


def test_the_first_five_minutes_are_five_commands_at_most():
    section = README[README.index("## First five minutes") : README.index("## Embed your videos")]
    (block,) = re.findall(r"```\n(.*?)```", section, flags=re.S)
    commands = block.splitlines()
    assert len(commands) <= 5 and commands[0].startswith("pip install")
    for word in ("embed", "opposites"):
        assert any(command.startswith(f"lift {word} ") for command in commands)


def test_python_blocks_run(folder):
    blocks = [block for language, block in BLOCKS if language == "python"]
    assert blocks
    for block in blocks:
        result = subprocess.run(
            [sys.executable, "-c", block], cwd=folder, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "command", [command for command in [*COMMANDS, *INLINE] if command.startswith("make")]
)
def test_make_targets_exist(command):
    dry = [*shlex.split(command), "--dry-run"]
    assert subprocess.run(dry, cwd=ROOT, capture_output=True).returncode == 0


def test_no_command_is_left_unrun():
    known = ("lift ", "make", 'pip install ".[plot]"')
    assert not [command for command in COMMANDS if not command.startswith(known)]


def test_every_link_and_figure_leads_somewhere():
    targets = [
        target for target in re.findall(r"\]\(([^)#]+)\)", README) if not target.startswith("http")
    ]
    assert targets and not [target for target in targets if not (ROOT / target).exists()]


def test_the_result_table_is_the_one_that_the_demo_profile_wrote():
    written = (ROOT / "figures" / "demo" / "table2_chiral_accuracy" / "accuracy.md").read_text(
        encoding="utf-8"
    )
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert len(rows) > 8 and "\n".join(rows) in README


def _values(target: str) -> set[str]:
    """Every number of a committed table, to one decimal and without its sign."""
    table = (ROOT / target).with_suffix(".csv").read_text(encoding="utf-8")
    return {
        f"{abs(float(number)):.1f}"
        for number in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])", table)
    }


def test_every_number_of_the_results_is_a_cell_of_a_table_that_its_paragraph_links():
    section = README[README.index("<!-- results -->") : README.index("<!-- end of results -->")]
    paragraphs = [
        part
        for part in section.split("\n\n")
        if not part.startswith("|") and re.search(r"\d\.\d", part)
    ]
    assert len(paragraphs) >= 3
    for paragraph in paragraphs:
        known = set().union(
            *(
                _values(target)
                for target in re.findall(r"\]\((figures/[^)]+/(?!README)[^)/]+\.md)\)", paragraph)
            )
        )
        text = re.sub(r"\]\([^)]*\)", "]", paragraph)
        lost = [
            number
            for number in re.findall(r"(?<![\w.])\d+\.\d(?![\d.])", text)
            if number not in known
        ]
        assert not lost, (lost, paragraph)
