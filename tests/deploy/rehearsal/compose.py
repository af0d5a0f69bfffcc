"""The services of docker-compose.yml as processes, with all that compose would give them.

Differences: every address is 127.0.0.1, so ports are free ones and are put in the place of those
written; limits of memory and processes are not imposed but compared with what was used.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from tests.deploy.conftest import set_addresses
from tests.deploy.rehearsal.base import CannotRehearseError
from tests.deploy.rehearsal.containers import POLL_S, TMPFS_OPTIONS, Container, Mount, Spec
from tests.deploy.rehearsal.image import Image

ROOT = Path(__file__).parents[3]
NAMES = "127.0.0.1 localhost server replica proxy database clock\n"  # compose's DNS, as /etc/hosts
PUBLISHED_PORT = 8080  # where nginx listens, as written
DATABASE_PORT = 5432
SERVER_PORT = 8000


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def to_seconds(duration: str) -> float:
    """`1m0s`, `15s`, `5s` of compose and Docker."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(n) * units[unit] for n, unit in re.findall(r"([\d.]+)(ms|h|m|s)", duration))


def make_project(directory: Path) -> None:
    """The compose file with a .env beside it, which the commands of docs/deployment.md make."""
    directory.mkdir(parents=True)
    shutil.copy(ROOT / "docker-compose.yml", directory)
    shutil.copytree(ROOT / "config", directory / "config")
    shutil.copy(ROOT / "Dockerfile", directory)
    page = (ROOT / "docs/deployment.md").read_text()
    block = re.search(
        r"```sh\n(install -m 600 config/compose\.env\.example.+?)```", page, re.DOTALL
    )
    assert block is not None, "docs/deployment.md: the commands that make .env"
    subprocess.run(["sh", "-euc", block[1]], cwd=directory, check=True)


def read_config(project: Path, profile: str | None) -> dict[str, Any]:
    """What docker-compose itself makes of the files, for a profile; None: what .env names."""
    program = Path(sys.prefix) / "deploy/bin/docker-compose"
    if not program.exists():
        raise CannotRehearseError(
            "needs docker-compose from requirements/deploy.txt: make rehearse"
        )
    chosen = [] if profile is None else ["--profile", profile]
    bare = {"PATH": os.environ["PATH"], "HOME": str(project)}
    # The one profile only, whatever .env says.
    environment = bare if profile is None else bare | {"COMPOSE_PROFILES": profile}
    done = subprocess.run(
        [program, *chosen, "config", "--format", "json"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


@dataclass
class Service:
    """A service's running containers."""

    name: str
    config: dict[str, Any]
    specs: list[Spec]
    ports: list[int]
    health_command: list[str]
    health_wait_s: float
    containers: list[Container] = field(default_factory=list)
    healthy_after_s: float = 0.0
    stopped: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class Deployment:
    """One profile of the compose file."""

    project: Path
    profile: str
    directory: Path
    images: dict[str, tuple[Image, list[Mount]]]  # by the beginning of the image's name
    replicas: int | None = None  # `--scale replica=…`
    services: dict[str, Service] = field(default_factory=dict)
    started: int = 0

    def __post_init__(self) -> None:
        self.config = read_config(self.project, self.profile)
        self.volumes: Path = self.directory / "volumes"
        self.hosts = self.directory / "hosts"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.hosts.write_text(NAMES)
        order = {
            name: set(service.get("depends_on") or {})
            for name, service in self.config["services"].items()
        }
        for name in TopologicalSorter(order).static_order():
            self.services[name] = self._prepare(name, self.config["services"][name])

    # ---- what is read of the files

    def _prepare(self, name: str, config: dict[str, Any]) -> Service:
        image, mounts = next(
            found for prefix, found in self.images.items() if config["image"].startswith(prefix)
        )
        count = int(config.get("deploy", {}).get("replicas", 1))
        if name == "replica" and self.replicas is not None:
            count = self.replicas
        ports = [find_free_port() for _ in range(count)]
        check = config.get("healthcheck")
        options = check or {
            key.replace("-", "_"): value for key, value in image.health_options.items()
        }
        command = check["test"][1:] if check else image.health_command
        if name == "proxy":
            command = [part.replace(f":{PUBLISHED_PORT}/", f":{ports[0]}/") for part in command]
        wait_s = to_seconds(options["start_period"]) + int(options["retries"]) * to_seconds(
            options["interval"]
        )
        specs = [self._make_spec(name, config, image, mounts, port) for port in ports]
        return Service(name, config, specs, ports, command, wait_s)

    def _make_spec(
        self, name: str, config: dict[str, Any], image: Image, mounts: list[Mount], port: int
    ) -> Spec:
        assert config["cap_drop"] == ["ALL"], name
        assert config["security_opt"] == ["no-new-privileges:true"], name
        given = {
            key: "" if value is None else str(value)
            for key, value in config.get("environment", {}).items()
        }
        return Spec(
            name=name,
            layers=tuple(image.layers),
            command=(config["entrypoint"] or image.entrypoint)
            + (config["command"] or image.command),
            environment=image.environment | given | self._addresses(given, port),
            user=config.get("user", image.user),
            workdir=image.workdir,
            mounts=(*mounts, *self._mounts(name, config, image, port)),
            is_read_only=config["read_only"],
            stop_signal=config.get("stop_signal", image.stop_signal),
            grace_s=to_seconds(config["stop_grace_period"]),
        )

    def _addresses(self, environment: dict[str, str], port: int) -> dict[str, str]:
        """The variables that hold an address, with the one that it is here."""
        here = {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(port), "PGPORT": str(port)}
        if "DATABASE_URL" in environment:
            written = f"@database:{DATABASE_PORT}/"
            assert written in environment["DATABASE_URL"]
            found = f"@database:{self.services['database'].ports[0]}/"
            here["DATABASE_URL"] = environment["DATABASE_URL"].replace(written, found)
        if "TRUSTED_PROXIES" in environment:
            here["TRUSTED_PROXIES"] = "127.0.0.1"  # nginx's address
        return here

    def _mounts(
        self, name: str, config: dict[str, Any], image: Image, port: int
    ) -> Iterator[Mount]:
        yield Mount("/etc/hosts", source=self.hosts, is_read_only=True)
        for entry in config.get("tmpfs") or []:
            target, _, options = entry.partition(":")
            yield Mount(target, tmpfs=f"{options},{TMPFS_OPTIONS}")
        if "shm_size" in config:
            yield Mount("/dev/shm", tmpfs=f"size={config['shm_size']},mode=1777,{TMPFS_OPTIONS}")
        for entry in config.get("volumes") or []:
            if entry["type"] == "volume":
                yield Mount(entry["target"], source=self._make_volume(entry, image))
            else:
                source = Path(entry["source"])
                assert source.name == "nginx.conf"
                yield Mount(
                    entry["target"],
                    source=self._render_proxy(source, port),
                    is_read_only=entry["read_only"],
                )

    def _make_volume(self, entry: dict[str, Any], image: Image) -> Path:
        """A named volume: a new one takes owner and mode from the image, or is mounted as it says."""
        place = self.volumes / entry["source"]
        if place.exists():
            return place
        place.mkdir(parents=True)
        options = self.config["volumes"][entry["source"]].get("driver_opts")
        if options:
            command = [
                "mount",
                "-t",
                options["type"],
                "-o",
                options["o"],
                options["device"],
                str(place),
            ]
            subprocess.run(command, check=True)
            return place
        for layer in reversed(image.layers):
            original = layer / entry["target"].lstrip("/")
            if original.exists():
                status = original.stat()
                os.chown(place, status.st_uid, status.st_gid)
                place.chmod(status.st_mode & 0o7777)
                break
        return place

    def _render_proxy(self, source: Path, port: int) -> Path:
        place = self.directory / "nginx.conf"
        replicas = [f"127.0.0.1:{number}" for number in self.services["replica"].ports]
        listen = f"127.0.0.1:{port}"
        place.write_text(set_addresses(source.read_text(), listen=listen, replicas=replicas))
        return place

    def lead_to(self, ports: list[int]) -> None:
        """Let the running proxy lead to servers on these ports, by a reload."""
        proxy = self.services["proxy"]
        (source,) = [Path(entry["source"]) for entry in proxy.config["volumes"]]
        listen, replicas = f"127.0.0.1:{proxy.ports[0]}", [f"127.0.0.1:{port}" for port in ports]
        config = set_addresses(source.read_text(), listen=listen, replicas=replicas)
        (self.directory / "nginx.conf").write_text(config)
        os.kill(proxy.containers[0].pid, signal.SIGHUP)

    # ---- what runs

    @property
    def url(self) -> str:
        """What the published port leads to."""
        name = "proxy" if "proxy" in self.services else "server"
        return f"http://127.0.0.1:{self.services[name].ports[0]}"

    @property
    def secrets(self) -> dict[str, str]:
        name = "server" if "server" in self.services else "replica"
        return dict(self.config["services"][name]["environment"])

    def start(self, service: Service, number: int = 0) -> Container:
        """Start one container of the service, without waiting for it."""
        self.started += 1
        place = self.directory / f"{service.name}-{self.started}"
        container = Container(service.specs[number], place)
        if number < len(service.containers):
            service.containers[number] = container
        else:
            service.containers.append(container)
        return container

    def wait_until_healthy(self, service: Service, container: Container) -> float:
        """Run the health check until it succeeds; the seconds that took. Raises if it never does."""
        began = time.monotonic()
        while time.monotonic() < began + service.health_wait_s:
            if not container.is_running:
                break
            if container.execute(service.health_command).returncode == 0:
                return time.monotonic() - began
            time.sleep(POLL_S)
        raise RuntimeError(f"{service.name} is not healthy:\n{container.log[-4000:]}")

    @contextmanager
    def up(self, *, only: Collection[str] = ()) -> Iterator[None]:
        """All services or these, in the order of depends_on, until the end of the block."""
        try:
            for service in self.services.values():
                if only and service.name not in only:
                    continue
                for number in range(len(service.specs)):
                    container = self.start(service, number)
                    service.healthy_after_s = max(
                        service.healthy_after_s, self.wait_until_healthy(service, container)
                    )
            yield
        finally:
            for service in reversed(self.services.values()):
                for container in service.containers:
                    if container.is_running:
                        service.stopped.append(container.stop())

    def measure(self) -> None:
        for service in self.services.values():
            for container in service.containers:
                if container.is_running:
                    container.measure()
