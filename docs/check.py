"""What is wrong with a built site: links that lead nowhere, names and outputs that it lacks."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pages import public_names


class _Page(HTMLParser):
    """The links and the anchors of one page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors = [], {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        self.links += [values[key] for key in ("href", "src") if values.get(key)]


def broken_links(site: Path) -> list[str]:
    """Links to a file or an anchor that the site does not have; those to other sites are left."""
    own = [path.resolve() for path in site.rglob("*.html") if "_static" not in path.parts]
    pages = {path: _Page(path) for path in own}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = target.exists() and (
                target not in pages or unquote(parts.fragment) in pages[target].anchors
            )
            if not there:
                broken.append(f"{path.relative_to(site.resolve())}: {link} leads nowhere")
    return broken


def fetched_parts(site: Path) -> list[str]:
    """Scripts and pictures that a page would fetch from another site."""
    fetched = re.compile(r'<(?:script|img)\b[^>]*\bsrc="(https?:[^"]+)"')
    return [
        f"{page.relative_to(site)}: fetches {address}"
        for page in sorted(site.rglob("*.html"))
        for address in fetched.findall(page.read_text(encoding="utf-8"))
    ]


def missing_names(site: Path) -> list[str]:
    """Public names without an anchor on the page of their module."""
    missing = []
    for module, names in public_names().items():
        page = _Page(site / "docs" / "api" / f"{module}.html")
        # a name that another module lends is a link to its own place
        there = page.anchors | {link.partition("#")[2] for link in page.links}
        last = {anchor.rpartition(".")[2] for anchor in there if anchor.startswith("lift.")}
        missing += [f"{module}.{name}" for name in names if name not in last]
    return [f"{name} is not in the reference" for name in missing]


def silent_tutorials(site: Path) -> list[str]:
    """Tutorials that are shown without outputs."""
    pages = sorted((site / "nbs" / "tutorials").glob("*.html"))
    silent = [page for page in pages if "cell_output" not in page.read_text(encoding="utf-8")]
    return [f"{page.stem} has no output: make docs executes it" for page in silent]


if __name__ == "__main__":
    site = Path(sys.argv[1])
    faults = broken_links(site) + missing_names(site) + silent_tutorials(site) + fetched_parts(site)
    print(
        "\n".join(faults) or f"{len(list(site.rglob('*.html')))} pages, every link leads somewhere"
    )
    sys.exit(bool(faults))
