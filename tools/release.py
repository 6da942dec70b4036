"""A release by one command: `python tools/release.py 0.2.0`.

Writes the version where it is kept, and dates its entry of the changelog. Nothing is written
unless all of it can be.
"""

import re
import sys
from datetime import date
from pathlib import Path

PLACES = {
    "settings.ini": r"^version = (\S+)$",
    "lift/__init__.py": r'^__version__ = "(\S+)"$',
    "CITATION.cff": r"^version: (\S+)$",
    "conda/meta.yaml": r'^{% set version = "(\S+)" %}$',
}


def release(root: Path, version: str, day: date) -> dict[Path, str]:
    """The new text of each file that a release changes; `SystemExit` says what is in the way."""
    if not re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", version):
        sys.exit(f"{version!r} is no version: give one such as 0.2.0 or 0.2.0rc1")
    texts = {}
    for name, pattern in PLACES.items():
        text = (root / name).read_text(encoding="utf-8")
        found = list(re.finditer(pattern, text, re.MULTILINE))
        if len(found) != 1:
            sys.exit(f"{name}: {len(found)} lines hold the version, there must be one: {pattern}")
        start, end = found[0].span(1)
        texts[root / name] = text[:start] + version + text[end:]
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = f"## {version} (unreleased)"
    if changes.count(heading) != 1:
        sys.exit(f"CHANGELOG.md: write what is new below the heading {heading!r} first")
    return texts | {root / "CHANGELOG.md": changes.replace(heading, f"## {version} ({day})")}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for path, text in release(Path.cwd(), sys.argv[1], date.today()).items():
        path.write_text(text, encoding="utf-8")
        print(path.name)
    print(
        f"now: make test && make wheel && git commit -a -m {sys.argv[1]} && git tag {sys.argv[1]}"
    )
