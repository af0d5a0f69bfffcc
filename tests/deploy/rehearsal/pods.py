"""The pods of config/kubernetes/deployment.yaml as processes, treated as the kubelet would treat them.

nginx stands for the Service and the Ingress: it is told of a pod once that is ready, and of its end
some time after the pod has heard of it.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.deploy import manifests
from tests.deploy.rehearsal.compose import Deployment, find_free_port
from tests.deploy.rehearsal.containers import POLL_S, Container, Mount, Spec
from tests.deploy.rehearsal.image import Image

ENDPOINT_LAG_S = 2.0  # from the pod's end until no new connection is led to it; has to be < preStop
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def to_bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMG]i)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * _UNITS[unit]


def make_environment(database_url: str) -> dict[str, str]:
    """Of envFrom: the ConfigMap, and a Secret with the names of the example."""
    settings: dict[str, str] = dict(manifests.read_manifest("configmap")["data"])
    for name in manifests.read_manifest("secret.example")["stringData"]:
        settings[name] = database_url if name == "DATABASE_URL" else secrets.token_hex(32)
    return settings


@dataclass
class Probe:
    """An httpGet probe, asked from here as the kubelet asks from its node."""

    path: str
    period_s: float
    failures: int
    timeout_s: float

    @classmethod
    def read(cls, name: str) -> Probe:
        probe = manifests.container("server")[name]
        assert probe["httpGet"]["port"] == "http", name
        return cls(
            probe["httpGet"]["path"],
            probe["periodSeconds"],
            probe["failureThreshold"],
            probe["timeoutSeconds"],
        )

    def succeeds(self, port: int) -> bool:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}{self.path}", timeout=self.timeout_s)
        except httpx.TransportError:
            return False
        return 200 <= answer.status_code < 400

    def wait(self, port: int, *, until: bool = True) -> float:
        """Ask more often than the kubelet does, for as long as it would; the seconds that took."""
        began = time.monotonic()
        while time.monotonic() < began + self.period_s * self.failures + self.timeout_s:
            if self.succeeds(port) is until:
                return time.monotonic() - began
            time.sleep(POLL_S)
        raise TimeoutError(f"{self.path} on port {port}: not {until}")


@dataclass
class Pod:
    image: Image
    environment: dict[str, str]
    directory: Path
    port: int = field(default_factory=find_free_port)
    containers: dict[str, Container] = field(default_factory=dict)
    started_s: float = 0.0
    ended: dict[str, tuple[int, float]] = field(default_factory=dict)  # exit code, seconds

    def start(self) -> None:
        """Start both containers and wait for the startup and the readiness probe."""
        volumes = {
            volume["name"]: self._make_volume(volume) for volume in manifests.pod()["volumes"]
        }
        for entry in manifests.pod()["containers"]:
            spec = self._make_spec(entry, volumes)
            self.containers[entry["name"]] = Container(spec, self.directory / entry["name"])
        self.started_s = Probe.read("startupProbe").wait(self.port)
        Probe.read("readinessProbe").wait(self.port)

    def _make_volume(self, volume: dict[str, Any]) -> Path:
        """An emptyDir as the kubelet makes it: open to all, of the group fsGroup."""
        place = self.directory / "volumes" / volume["name"]
        place.mkdir(parents=True)
        if volume["emptyDir"].get("medium") == "Memory":
            size = f"size={to_bytes(volume['emptyDir']['sizeLimit'])}"
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", place], check=True)
        os.chown(place, 0, manifests.pod()["securityContext"]["fsGroup"])
        place.chmod(0o2777)
        return place

    def _make_spec(self, entry: dict[str, Any], volumes: dict[str, Path]) -> Spec:
        context, own = manifests.pod()["securityContext"], entry["securityContext"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["allowPrivilegeEscalation"] is False
        given = self.environment if entry.get("envFrom") else {}
        command = entry.get("command", self.image.entrypoint) + entry.get(
            "args", self.image.command
        )
        addresses = {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(self.port)}
        if "TRUSTED_PROXIES" in given:
            addresses["TRUSTED_PROXIES"] = "127.0.0.1"
        return Spec(
            name=entry["name"],
            layers=tuple(self.image.layers),
            command=command,
            environment=self.image.environment | given | addresses,
            user=f"{context['runAsUser']}:{context['runAsGroup']}",
            workdir=self.image.workdir,
            mounts=tuple(
                Mount(each["mountPath"], source=volumes[each["name"]])
                for each in entry["volumeMounts"]
            ),
            is_read_only=own["readOnlyRootFilesystem"],
            stop_signal=self.image.stop_signal,
        )

    def end(self) -> None:
        """preStop, SIGTERM and then SIGKILL, for each container by itself, within the grace period."""
        grace_s = float(manifests.pod()["terminationGracePeriodSeconds"])
        with ThreadPoolExecutor(len(self.containers)) as pool:
            for name, ended in zip(
                self.containers,
                pool.map(lambda name: self._end_container(name, grace_s), self.containers),
                strict=True,
            ):
                self.ended[name] = ended

    def _end_container(self, name: str, grace_s: float) -> tuple[int, float]:
        container, began = self.containers[name], time.monotonic()
        container.measure()
        hook = manifests.container(name).get("lifecycle", {}).get("preStop")
        if hook is not None:
            done = container.execute(hook["exec"]["command"], timeout_s=grace_s)
            assert done.returncode == 0, f"preStop of {name}: {done.stderr}"
        left_s = grace_s - (time.monotonic() - began)
        code, _ = container.stop(grace_s=left_s)
        return code, time.monotonic() - began

    def kill(self) -> None:
        for container in self.containers.values():
            container.kill()


@dataclass
class Cluster:
    """As many pods as the autoscaler keeps, with the database and the proxy of the compose file."""

    services: Deployment
    image: Image
    directory: Path
    pods: list[Pod] = field(default_factory=list)
    ended: list[Pod] = field(default_factory=list)

    def __post_init__(self) -> None:
        database = self.services.services["database"]
        password = database.config["environment"]["POSTGRES_PASSWORD"]
        url = f"postgresql://scs:{password}@127.0.0.1:{database.ports[0]}/scs"
        self.environment = make_environment(url)

    def make_pod(self) -> Pod:
        number = len(self.pods) + len(self.ended)
        pod = Pod(self.image, self.environment, self.directory / f"pod-{number}")
        try:
            pod.start()
        except BaseException:
            for container in pod.containers.values():
                print(container.log[-4000:])
            pod.kill()
            raise
        self.pods.append(pod)
        return pod

    def lead_to_pods(self) -> None:
        self.services.lead_to([pod.port for pod in self.pods])

    def start(self) -> None:
        for _ in range(manifests.read_manifest("hpa")["spec"]["minReplicas"]):
            self.make_pod()
        self.lead_to_pods()

    async def roll(self) -> None:
        """A rolling update as deployment.yaml has it: one pod more, and none less than wanted."""
        strategy = manifests.read_manifest("deployment")["spec"]["strategy"]["rollingUpdate"]
        assert strategy == {"maxUnavailable": 0, "maxSurge": 1}
        for pod in list(self.pods):
            await asyncio.to_thread(self.make_pod)
            self.pods.remove(pod)
            self.ended.append(pod)
            ending = asyncio.create_task(asyncio.to_thread(pod.end))
            await asyncio.sleep(ENDPOINT_LAG_S)
            self.lead_to_pods()
            await ending

    def stop(self) -> None:
        for pod in [*self.pods, *self.ended]:
            pod.kill()

    def lose_database(self) -> float:
        """Stop the database and start it: pods are not ready meanwhile, and alive. How long it took
        until the last was ready again, in s."""
        ready, alive = Probe.read("readinessProbe"), Probe.read("livenessProbe")
        database = self.services.services["database"]
        database.containers[0].stop()
        for pod in self.pods:
            ready.wait(pod.port, until=False)
        assert all(alive.succeeds(pod.port) for pod in self.pods), "a pod would be killed"
        container = self.services.start(database)
        self.services.wait_until_healthy(database, container)
        return max(ready.wait(pod.port) for pod in self.pods)
