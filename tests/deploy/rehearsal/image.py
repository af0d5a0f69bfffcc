"""Executes the Dockerfile, instruction by instruction, as Docker would."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from docker.utils.build import exclude_paths

from tests.deploy import dockerfile
from tests.deploy.dockerfile import Instruction, Stage
from tests.deploy.rehearsal import base
from tests.deploy.rehearsal.containers import Mount, Spec, make_overlay, run_to_end

# What says nothing of the file system, and is read later.
_METADATA = {"LABEL", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
INSTRUCTIONS = _METADATA | {"ARG", "ENV", "WORKDIR", "USER", "VOLUME", "COPY", "RUN"}
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")  # Docker's own


@dataclass
class Image:
    """The layers of a root file system, the lowest first, and how a container of it is started."""

    layers: list[Path]
    environment: dict[str, str]
    user: str = "0:0"
    workdir: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health_options: dict[str, str] = field(default_factory=dict)
    health_command: list[str] = field(default_factory=list)
    stop_signal: str = "SIGTERM"
    volumes: list[str] = field(default_factory=list)
    root: Path = Path("/nowhere")  # where the layers are mounted, to be read


@dataclass
class Build:
    """The stages of a Dockerfile, each on a base that stands in for the image it names."""

    context: Path
    base: Path
    directory: Path
    images: dict[str, Image] = field(default_factory=dict)  # by the stage's name
    steps: list[tuple[str, float]] = field(default_factory=list)  # and how long it took, in s

    def run(self) -> Image:
        """Execute all stages; the image that the last one makes."""
        for number, stage in enumerate(dockerfile.read_stages(self.context / "Dockerfile")):
            image = self._run_stage(stage, self.directory / f"stage-{number}")
            self.images[stage.name or str(number)] = image
        return image

    def _run_stage(self, stage: Stage, directory: Path) -> Image:
        image = Image([self.base], dict(base.ENVIRONMENT))
        arguments: dict[str, str] = {}
        for number, instruction in enumerate(stage.instructions):
            began = time.monotonic()
            self._execute(instruction, image, arguments, directory / str(number))
            self.steps.append((f"{instruction.name} {instruction.value}", time.monotonic() - began))
        image.root = make_overlay(image.layers, directory / "whole")
        return image

    def _execute(
        self, instruction: Instruction, image: Image, arguments: dict[str, str], directory: Path
    ) -> None:
        variables = arguments | image.environment
        value = instruction.value
        match instruction.name:
            case "ARG":
                arguments |= dockerfile.read_pairs(value, variables)
            case "ENV":
                image.environment |= dockerfile.read_pairs(value, variables)
            case "WORKDIR":
                image.workdir = dockerfile.expand(value, variables)
                (directory / image.workdir.lstrip("/")).mkdir(parents=True)
                image.layers.append(directory)
            case "USER":
                image.user = dockerfile.expand(value, variables)
            case "VOLUME":
                image.volumes.append(value)
            case "COPY":
                self._copy(value.split(), image.workdir, directory)
                image.layers.append(directory)
            case "RUN":
                image.layers.append(run_shell(value, image, variables, directory))
            case "HEALTHCHECK":
                image.health_options, image.health_command = dockerfile.read_health_check(value)
            case "ENTRYPOINT":
                image.entrypoint = dockerfile.read_command(value)
            case "CMD":
                image.command = dockerfile.read_command(value)
            case "STOPSIGNAL":
                image.stop_signal = value
            case name if name not in _METADATA:
                raise NotImplementedError(f"the rehearsal cannot execute {name}")

    def _copy(self, words: list[str], workdir: str, layer: Path) -> None:
        """Files of the context that .dockerignore lets in, or of a stage; all belong to root."""
        allowed: set[str] | None = None
        if words[0].startswith("--from="):
            root = self.images[words.pop(0).removeprefix("--from=")].root
        else:
            root, allowed = self.context, list_context(self.context)
        *sources, target = words
        place = layer / str(PurePosixPath(workdir) / target).lstrip("/")
        for name in sources:
            source = root / name.lstrip("/")
            if source.is_dir():
                shutil.copytree(
                    source,
                    place,
                    symlinks=True,
                    dirs_exist_ok=True,
                    ignore=_leave_out(root, allowed),
                )
            elif allowed is not None and name not in allowed:
                raise RuntimeError(f"COPY {name}: .dockerignore does not let it in")
            else:
                copied = place / source.name if target.endswith("/") else place
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copied)
        subprocess.run(["chown", "-R", "--no-dereference", "0:0", layer], check=True)


def list_context(context: Path) -> set[str]:
    """Files and directories that .dockerignore lets into the build, by their paths in the context."""
    lines = (context / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    return set(exclude_paths(str(context), rules))


def run_shell(command: str, image: Image, variables: dict[str, str], directory: Path) -> Path:
    """Run it by the shell in the image, as its user, with the network; the layer that it wrote."""
    settings, mounts = find_package_settings()
    spec = Spec(
        name="RUN",
        layers=tuple(image.layers),
        command=["/bin/sh", "-c", command],
        environment=settings | variables,
        user=image.user,
        workdir=image.workdir,
        mounts=tuple(mounts),
        is_confined=False,
    )
    run_to_end(spec, directory)
    return directory / "upper"


def _leave_out(root: Path, allowed: set[str] | None) -> Callable[[str, list[str]], set[str]]:
    """What shutil.copytree passes over: what is not allowed, None being all."""

    def ignore(directory: str, names: list[str]) -> set[str]:
        if allowed is None:
            return set()
        relative = Path(directory).relative_to(root)
        return {name for name in names if str(relative / name) not in allowed}

    return ignore


def find_package_settings() -> tuple[dict[str, str], list[Mount]]:
    """This machine's settings of pip and proxies as variables, and the files that they name.

    They stand for what `docker build` is given on a machine that reaches packages in its own way.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        if found := re.match(r"(?:global|install|:env:)\.([a-z-]+)=(.+)$", line):
            settings["PIP_" + found[1].replace("-", "_").upper()] = str(ast.literal_eval(found[2]))
    names = [*_CERTIFICATES, *_PROXIES, *(name.lower() for name in _PROXIES)]
    settings |= {name: os.environ[name] for name in names if name in os.environ}
    mounts = [Mount(str(path), source=path, is_read_only=True) for path in _paths_named(settings)]
    resolver = Path("/etc/resolv.conf").resolve()
    mounts.append(Mount("/etc/resolv.conf", source=resolver, is_read_only=True))
    mounts.append(Mount("/etc/hosts", source=Path("/etc/hosts"), is_read_only=True))
    return settings, mounts


def _paths_named(settings: dict[str, str]) -> list[Path]:
    words = {word for value in settings.values() for word in value.split()}
    paths = {
        # A simple index's pages name files beside the index.
        Path(word.removeprefix("file://")).parent if word.startswith("file://") else Path(word)
        for word in words
        if word.startswith(("/", "file:///"))
    }
    return sorted(path for path in paths if path.exists() and path != Path("/"))
