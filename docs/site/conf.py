"""Settings of Sphinx for `make docs-site`: the Markdown pages of the checkout as a web site.

The site loads nothing from other hosts, and the search runs in the reader's browser, so it can be read
without a network and from the file system.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "Shared Context Server"
author = project
release = _PROJECT["version"]
extensions = ["myst_parser"]

# The source directory is the checkout, so links between docs/ and the pages beside it are checked too.
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "client/README.md",
    "examples/README.md",
]
exclude_patterns = [
    ".*",
    "site",
    "build",
    "dist",
    "**/node_modules",
    "src",
    "tests",
    "requirements",
]

myst_heading_anchors = 4
# Code is indented in many pages, without its language.
highlight_language = "none"
# Quotes are shown as they are to be typed.
smartquotes = False

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_sphinx = False
html_extra_path = ["index.html"]
html_static_path = ["static"]
html_css_files = ["site.css"]
# Of a light and a dark page.
pygments_style = "default"
pygments_dark_style = "github-dark"
