"""Jinja2 templates of the dashboard: loaded in a thread when the first page is asked for."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from shared_context_server.display import show_printable, show_quoted
from shared_context_server.ui.static_files import StaticFile, load_static_files

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

_QUOTED_WORDS = re.compile("`([^`]+)`")
_INVISIBLE = frozenset(("Cc", "Cf", "Zl", "Zp", "Zs"))


@dataclass(frozen=True, slots=True)
class Assets:
    """The compiled templates by name, and the static files."""

    templates: dict[str, Template]
    files: dict[str, StaticFile]


class LateAssets:
    """The assets of one server. Servers without a dashboard's visitor load nothing, since Jinja2
    takes megabytes and its compiler some hundred milliseconds."""

    def __init__(self) -> None:
        self._assets: Assets | None = None
        self._loading: asyncio.Task[Assets] | None = None

    async def get(self) -> Assets:
        """Return the assets. Several requests wait for one load."""
        if self._assets is not None:
            return self._assets
        if self._loading is None:
            self._loading = asyncio.create_task(asyncio.to_thread(_load))
        loading = self._loading
        try:
            self._assets = await asyncio.shield(loading)  # the first client may disconnect
        finally:
            if loading.done() and self._loading is loading:
                self._loading = None
        return self._assets


@cache  # the same for every server of the process
def _load() -> Assets:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - see LateAssets

    files = load_static_files()
    environment = Environment(
        loader=PackageLoader("shared_context_server.ui"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=show_plain,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "iso": to_iso,
        "utc": to_utc_text,
        "number": "{:,}".format,
        "pretty_json": to_pretty_json,
        "exact": to_exact,
        "named": show_named,
        "words": to_words,
    }
    environment.globals |= {"digests": {name: file.digest for name, file in files.items()}}
    names = environment.list_templates(extensions=["html"])
    return Assets({name: environment.get_template(name) for name in names}, files)


def show_plain(value: Any) -> Any:
    """Return what a template prints. Texts are made printable, whoever has written them, so that none
    can turn the direction of the page; HTML that the templates have made stays."""
    return show_printable(value) if type(value) is str else value


def to_exact(text: str) -> Markup:
    """Return a text as it is, for the value of a field that a browser sends back or copies."""
    from markupsafe import escape  # noqa: PLC0415 - see LateAssets

    return escape(text)


def show_named(text: str) -> str:
    """Return a name or a title, quoted with escapes if it would look empty."""
    is_seen = any(unicodedata.category(char) not in _INVISIBLE for char in text)
    return text if is_seen else show_quoted(text)


def to_words(text: str) -> Markup:
    """Return the words of an error as HTML: what stands between backticks as code."""
    from markupsafe import Markup, escape  # noqa: PLC0415 - see LateAssets

    parts = _QUOTED_WORDS.split(show_printable(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )


def to_iso(moment: datetime) -> str:
    """Return the time for the attribute `datetime`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_utc_text(moment: datetime) -> str:
    """Return the time as it is shown where scripts do not run, and on hover."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def to_pretty_json(value: Any) -> str:
    """Return a JSON value indented for people, with escapes as pages show them."""
    return show_printable(to_json(value, indent=2).decode())
