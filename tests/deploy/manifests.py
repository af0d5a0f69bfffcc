"""What the Dockerfile, docker-compose.yml and the Kubernetes manifests say, read as data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from tests.deploy.dockerfile import Stage, read_health_check, read_pairs, read_stages

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "config/kubernetes"

Manifest = dict[str, Any]


def final_stage() -> Stage:
    return read_stages()[-1]


def image_environment() -> dict[str, str]:
    return read_pairs(final_stage().value("ENV"), {"PATH": "/usr/bin"})


def image_healthcheck() -> list[str]:
    return read_health_check(final_stage().value("HEALTHCHECK"))[1]


def read_compose() -> Manifest:
    text = (ROOT / "docker-compose.yml").read_text()
    return dict(yaml.safe_load(text))


def services() -> dict[str, Manifest]:
    return dict(read_compose()["services"])


def compose_variables() -> dict[str, set[str]]:
    """What follows the name in each `${NAME…}` of docker-compose.yml, by name."""
    found: dict[str, set[str]] = {}
    text = (ROOT / "docker-compose.yml").read_text()
    for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", text):
        found.setdefault(name, set()).add(rest)
    return found


def named_in(path: Path) -> set[str]:
    """The variables of an environment file, also those that are commented out."""
    return set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", path.read_text(), re.MULTILINE))


def compose_example() -> dict[str, str | None]:
    return dotenv_values(ROOT / "config/compose.env.example")


def read_manifest(name: str) -> Manifest:
    return dict(yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text()))


def pod() -> Manifest:
    return dict(read_manifest("deployment")["spec"]["template"]["spec"])


def container(name: str) -> Manifest:
    (found,) = [entry for entry in pod()["containers"] if entry["name"] == name]
    return dict(found)


def nginx_directive(name: str) -> list[str]:
    """The arguments of each directive of this name in config/nginx.conf."""
    text = re.sub(r"#.*", "", (ROOT / "config/nginx.conf").read_text())
    return re.findall(rf"^\s*{name}\s+([^;]+);", text, re.MULTILINE)


def to_seconds(duration: str) -> int:
    """`30s`, `15`, `2m` or `1h` of nginx and compose."""
    number, unit = re.fullmatch(r"(\d+)([smh]?)", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"": 1, "s": 1, "m": 60, "h": 3600}[unit]
