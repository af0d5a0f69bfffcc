"""The code blocks of the pages, and what can be checked of each without running it."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shared_context_server.cli import app
from shared_context_server.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "client/README.md",
    ROOT / "examples/README.md",
    *sorted(set((ROOT / "docs").glob("*.md")) - {ROOT / "docs/index.md"}),  # lists of pages only
]
OUR_COMMANDS = {"scs", "shared-context-server"}
# Programs of others that the pages call; their arguments are theirs.
OTHER_COMMANDS = {
    *("call", "field", "eval", "for", "do", "done"),  # the shell's, and functions of the quickstart
    *("cp", "curl", "git", "install", "openssl", "rm", "sed", "sqlite3"),
    *("claude", "docker", "kubectl", "make", "pip", "python"),
}
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)$")
_MARK = re.compile(r"^\s*<!-- (?P<mark>.+?: tested.*|not run: .+) -->$")
_ITEM = re.compile(r"^\s*([-*]|\d+\.) ")
_SETTING = re.compile(r"(?:SCS_)?([A-Z][A-Z0-9_]+)=")
_ASSIGNMENT = re.compile(r"\w+=.*")


@dataclass(frozen=True)
class Block:
    """`language` is "" for an indented one. `mark` is the comment before it, "" if there is none."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def tested_as(self) -> str | None:
        return self.mark.split(": tested")[0] if ": tested" in self.mark else None

    @property
    def reason(self) -> str | None:
        """Why it is not run."""
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else None


def blocks_of(page: Path, text: str | None = None) -> Iterator[Block]:
    lines = (page.read_text(encoding="utf-8") if text is None else text).split("\n")
    number = 0
    margin = 4  # of an indented block; deeper behind an item of a list
    while number < len(lines):
        line = lines[number]
        start = number
        fence = _FENCE.match(line)
        if fence:
            number += 1
            while lines[number].strip() != "```":
                number += 1
            inner = [one[len(fence["indent"]) :] for one in lines[start + 1 : number]]
            yield Block(
                page, start + 1, fence["language"], _join(inner), _mark_before(lines, start)
            )
        elif line.startswith(" " * margin) and line.strip() and not lines[start - 1].strip():
            while number < len(lines) and (
                lines[number].startswith(" " * margin) or not lines[number].strip()
            ):
                number += 1
            inner = [one[margin:] for one in lines[start:number]]
            yield Block(page, start + 1, "", _join(inner), _mark_before(lines, start))
            number -= 1
        elif item := _ITEM.match(line):
            margin = item.end() + 4
        elif line.strip() and not line.startswith(" "):
            margin = 4
        number += 1


def _join(lines: list[str]) -> str:
    return "\n".join(lines).strip("\n") + "\n"


def _mark_before(lines: list[str], start: int) -> str:
    before = next((line for line in reversed(lines[:start]) if line.strip()), "")
    found = _MARK.match(before)
    return found["mark"] if found else ""


def check(block: Block) -> None:
    """Raise AssertionError where the block would not do as it stands; also for a kind that can
    neither be checked nor run, which needs a mark with a reason."""
    match kind_of(block):
        case "python":
            check_python(block.text)
        case "yaml":
            check_yaml(block.text)
        case "json":
            for line in block.text.splitlines() if block.language == "json" else [block.text]:
                json.loads(line)
        case "settings":
            for name in _SETTING.findall(block.text):
                assert name.lower() in Settings.model_fields, f"no setting {name}"
        case "sh":
            check_shell(block.text)
        case _:
            raise AssertionError("mark it as `X: tested` or `not run: reason`")


def kind_of(block: Block) -> str | None:
    if block.language in ("python", "yaml", "json", "sh"):
        return block.language
    if block.language:
        return None
    if all(_SETTING.match(line) and " serve" not in line for line in block.text.splitlines()):
        return "settings"
    if block.text.startswith("{") and "…" not in block.text:
        return "json"
    try:
        programs = {words[0] for words in commands_of(block.text)}
    except ValueError:
        return None
    return "sh" if programs and programs <= OUR_COMMANDS | OTHER_COMMANDS else None


def check_python(text: str) -> None:
    """It compiles, every name in it is defined in it, and what it imports of ours exists."""
    tree = ast.parse(text)
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F401", "-"]
    said = subprocess.run(ruff, input=text, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shared_context"):
            if ".integrations" in str(node.module):
                continue  # needs the framework
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"


def check_yaml(text: str) -> None:
    """It can be read; the commands of compose services are commands of ours."""
    document: Any = yaml.safe_load(text)
    for name, service in document.get("services", {}).items():
        # A container that is started anew gets an empty /dev/shm.
        assert not str(service.get("ipc", "")).startswith("service:"), name
        if command := service.get("command"):
            words = command if isinstance(command, list) else shlex.split(command)
            parse_our_command(words)  # the image's ENTRYPOINT is the program itself


def check_shell(text: str) -> None:
    """The shell can read it, our commands and their options exist, and so do make's targets."""
    said = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    for program, *arguments in commands_of(text):
        if program in OUR_COMMANDS:
            parse_our_command(arguments)
        elif program == "make":
            for target in (word for word in arguments if "=" not in word):
                makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target {target}"


def parse_our_command(words: list[str]) -> None:
    """As the command line reads it; nothing is run."""
    try:
        app.parse_args(words, print_error=False, exit_on_error=False)
    except Exception as exc:
        raise AssertionError(f"{' '.join(words)}: {exc}") from exc


def commands_of(text: str) -> Iterator[list[str]]:
    """The commands of a script and their words, those in $(…) too. Good for the plain scripts of the
    pages. Raises ValueError where quotes do not match."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        for inner in re.findall(r"\$\(([^()]+)\)", line):
            yield from commands_of(inner)
        plain = re.sub(r"\$\([^()]+\)", "X", line)
        lexer = shlex.shlex(plain, posix=True, punctuation_chars=";&|(){}<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|(){}") and word:
                while words and _ASSIGNMENT.fullmatch(words[0]):
                    words.pop(0)
                if words:
                    yield [words[0].rsplit("/", 1)[-1], *_without_redirections(words[1:])]
                words = []
            else:
                words.append(word)


def _without_redirections(words: list[str]) -> list[str]:
    cut = next((number for number, word in enumerate(words) if set(word) <= set("<>")), len(words))
    return words[:cut]


def marked(page: str, mark: str) -> str:
    """The text of the one block with this mark."""
    (block,) = (b for b in blocks_of(ROOT / page) if b.tested_as == mark)
    return block.text
