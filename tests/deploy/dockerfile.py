"""The Dockerfile, read as Docker reads it: its stages, and each instruction with variables replaced."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile_parse import DockerfileParser
from dockerfile_parse.util import WordSplitter, extract_key_values

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Instruction:
    name: str  # in capitals
    value: str  # with continued lines joined


@dataclass
class Stage:
    """What stands between one FROM and the next."""

    image: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        return [each.value for each in self.instructions if each.name == name]

    def value(self, name: str) -> str:
        """Of the one instruction of this name."""
        (found,) = self.values(name)
        return found


def read_instructions(path: Path = ROOT / "Dockerfile") -> list[Instruction]:
    parser = DockerfileParser(fileobj=io.BytesIO(path.read_bytes()))
    return [
        Instruction(entry["instruction"], entry["value"])
        for entry in parser.structure
        if entry["instruction"] != "COMMENT"
    ]


def read_stages(path: Path = ROOT / "Dockerfile") -> list[Stage]:
    """Each stage, its base with the defaults of the arguments before the first FROM."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for instruction in read_instructions(path):
        if instruction.name == "FROM":
            image, _, name = instruction.value.partition(" AS ")
            stages.append(Stage(expand(image, arguments), name.strip()))
        elif stages:
            stages[-1].instructions.append(instruction)
        else:
            arguments |= read_pairs(instruction.value, arguments)
    return stages


def expand(text: str, variables: Mapping[str, str]) -> str:
    """The text with its $NAME and ${NAME} replaced and its quotes taken away."""
    return str(WordSplitter(text, args=dict(variables), envs={}).dequote())


def read_pairs(value: str, variables: Mapping[str, str]) -> dict[str, str]:
    """NAME=value … of an ENV, ARG or LABEL."""
    return dict(extract_key_values(True, dict(variables), {}, value))


def read_command(value: str) -> list[str]:
    """The arguments of an ENTRYPOINT or CMD in exec form."""
    return [str(argument) for argument in json.loads(value)]


def read_health_check(value: str) -> tuple[dict[str, str], list[str]]:
    """The options (`interval`: `10s`) and the command of a HEALTHCHECK in exec form."""
    options, _, command = value.partition("CMD ")
    pairs = [option.removeprefix("--").split("=", 1) for option in options.split()]
    return dict(pairs), read_command(command)
