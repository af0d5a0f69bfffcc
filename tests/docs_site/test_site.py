"""What `make docs-site` has made: whole, and readable without a network. That target runs these tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
PAGES = sorted(SITE.rglob("*.html"))
STYLES = sorted(SITE.rglob("*.css"))
_OUTSIDE = re.compile(r"^\s*(?:[a-z]+:)?//", re.IGNORECASE)
_IN_STYLES = re.compile(r"""(?:url\(|@import)\s*['"]?([^'")\s;]+)""")
# Links that readers follow, and what describes a page, load nothing.
_NOT_LOADED = {"a", "area"}
_LINKS_NOT_LOADED = {"author", "canonical", "index", "next", "prev", "search", "up"}


class _Loaded(HTMLParser):
    """Collects the addresses that a browser loads by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.styles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in _NOT_LOADED and given.get("rel") not in _LINKS_NOT_LOADED:
            self.addresses += [given[name] for name in ("src", "href", "data") if name in given]
            self.addresses += given.get("srcset", "").split()
        self.styles.append(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "style":
            self.styles.append(data)


def loaded_by(page: str) -> Iterator[str]:
    parser = _Loaded()
    parser.feed(page)
    yield from parser.addresses
    for style in parser.styles:
        yield from _IN_STYLES.findall(style)


def outside(addresses: Iterator[str]) -> list[str]:
    return [address for address in addresses if _OUTSIDE.match(address)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(SITE)))
def test_a_page_loads_nothing_from_another_host(path: Path) -> None:
    assert outside(loaded_by(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", STYLES, ids=lambda path: str(path.relative_to(SITE)))
def test_a_style_sheet_loads_nothing_from_another_host(path: Path) -> None:
    assert outside(iter(_IN_STYLES.findall(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<img srcset="https://a.example/x.png 2x">',
        "<style>@import 'https://fonts.example/css';</style>",
        '<p style="background: url(https://a.example/x.png)">',
    ],
)
def test_what_is_loaded_from_another_host_is_found(page: str) -> None:
    assert outside(loaded_by(page)) != []


def test_every_page_of_the_checkout_is_there() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (SITE / "docs" / f"{page.stem}.html").exists()
    assert (SITE / "README.html").exists()
    assert "docs/index.html" in (SITE / "index.html").read_text(encoding="utf-8")


def test_the_search_needs_no_server() -> None:
    """Its index is a script, which a browser loads from the file system too."""
    index = (SITE / "searchindex.js").read_text(encoding="utf-8")
    assert index.startswith("Search.setIndex(")
    assert "fencing_token" in index
    assert 'src="searchindex.js"' in (SITE / "search.html").read_text(encoding="utf-8")


def test_readers_choose_between_light_and_dark() -> None:
    assert "theme-toggle" in (SITE / "docs/index.html").read_text(encoding="utf-8")
