"""Rehearse the deployment: `make rehearse`. Exits with 1 if a promise is broken or a step fails.

Needs root, debootstrap and the network that apt and pip use; installs nothing on this machine. What it
makes is below .rehearsal in the checkout. docs/deployment.md says what it proves and what it does not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import httpx

from tests.deploy import dockerfile, manifests
from tests.deploy.rehearsal import base, standins
from tests.deploy.rehearsal.compose import Deployment, Service, make_project
from tests.deploy.rehearsal.containers import Container, Mount
from tests.deploy.rehearsal.drills import Drill
from tests.deploy.rehearsal.image import Build, Image
from tests.deploy.rehearsal.pods import Cluster, to_bytes
from tests.deploy.rehearsal.rollout import measure, restart_one_by_one
from tests.deploy.rehearsal.selfcheck import check_the_check
from tests.deploy.rehearsal.tables import Table

ROOT = Path(__file__).parents[3]
HOME = ROOT / ".rehearsal"
RUN = HOME / "run"
INSIDE = "--inside"
REPLICAS = 3
PARTS = ("image", "sqlite", "postgres", "kubernetes")
SELFCHECK = "selfcheck"

Images = dict[str, tuple[Image, list[Mount]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        help=f"of {', '.join(PARTS)}; all, unless named; or only {SELFCHECK}: plant faults and see whether they are reported",
    )
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.parts == [SELFCHECK]:
        return self_check()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    try:
        base.require_programs()
        if not options.inside:
            # Its mounts and all its processes are then gone with it, however it ends.
            command = [sys.executable, "-m", "tests.deploy.rehearsal", INSIDE, *sys.argv[1:]]
            os.execvp("unshare", [*base.NAMESPACES, *command])
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("rehearse: ended by SIGTERM"))
        broken = rehearse(options.parts or list(PARTS))
    except base.CannotRehearseError as exc:
        print(f"rehearse: {exc}", file=sys.stderr)
        return 1
    for promise in broken:
        print(f"BROKEN: {promise}")
    print(f"\nrehearse: {f'{len(broken)} promises broken' if broken else 'all promises kept'}")
    return 1 if broken else 0


def self_check() -> int:
    try:
        wrong = check_the_check(HOME / SELFCHECK)
    except base.CannotRehearseError as exc:
        print(f"rehearse: {exc}", file=sys.stderr)
        return 1
    for sentence in wrong:
        print(f"WRONG: {sentence}")
    print(f"\nrehearse: {'the check fails' if wrong else 'the load reports each planted fault'}")
    return 1 if wrong else 0


def rehearse(parts: list[str]) -> list[str]:
    """The promises that were broken."""
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)
    image, lowest = build_image()
    make_project(RUN / "project")
    images: Images = {
        "shared-context-server:": (image, []),
        "nginx:": standins.make_nginx(lowest, RUN / "nginx"),
        "postgres:": standins.make_postgres(lowest, RUN / "database"),
    }
    broken: list[str] = []
    if "sqlite" in parts:
        broken += rehearse_sqlite(images)
    if "postgres" in parts:
        broken += rehearse_postgres(images)
    if "kubernetes" in parts:
        broken += rehearse_kubernetes(images, image)
    return broken


def build_image() -> tuple[Image, Path]:
    """The image of the Dockerfile, and the base that it stands on."""
    name = dockerfile.read_stages()[-1].image
    print(f"making the base for {name}, if it is not there yet", flush=True)
    lowest = base.make_base(name, HOME)
    build = Build(ROOT, lowest, RUN)
    image = build.run()
    table = Table(f"Dockerfile, {name} being {base.describe(lowest)}", ["step", "seconds"])
    for step, seconds in build.steps:
        table.add(" ".join(step.split())[:90], f"{seconds:.1f}")
    table.print()
    return image, lowest


def rehearse_sqlite(images: Images) -> list[str]:
    deployment = Deployment(RUN / "project", "sqlite", RUN / "sqlite", images)
    table = Table("docker-compose.yml, profile sqlite: what works", ["what"])
    with deployment.up():
        for step in Drill(deployment, RUN / "drill").all():
            table.add(step)
        deployment.measure()
    table.print()
    return report_services(deployment)


def rehearse_postgres(images: Images) -> list[str]:
    deployment = Deployment(RUN / "project", "postgres", RUN / "postgres", images, REPLICAS)
    with deployment.up():
        key = deployment.secrets["API_KEY"]
        name = f"Compose: {REPLICAS} replicas behind nginx, restarted one after the other"
        outcome = asyncio.run(
            measure(name, deployment.url, key, lambda: restart_one_by_one(deployment))
        )
        deployment.measure()
        stop_while_streaming(deployment)
    outcome.table.print()
    return outcome.broken + report_services(deployment)


def stop_while_streaming(deployment: Deployment) -> None:
    """Stop the proxy while a client reads a stream that would never end by itself."""
    proxy = deployment.services["proxy"]
    headers = {"X-API-Key": deployment.secrets["API_KEY"], "X-Agent-ID": "reader"}
    with httpx.stream("GET", f"{deployment.url}/events", headers=headers) as stream:
        assert stream.status_code == 200
        proxy.stopped.append(proxy.containers[0].stop())


def rehearse_kubernetes(images: Images, image: Image) -> list[str]:
    services = Deployment(RUN / "project", "postgres", RUN / "kubernetes", images)
    with services.up(only={"database", "proxy"}):
        cluster = Cluster(services, image, RUN / "pods")
        try:
            cluster.start()
            away_s = cluster.lose_database()
            key = cluster.environment["API_KEY"]
            name = "Kubernetes: three pods, each replaced by a new one that is ready before it ends"
            outcome = asyncio.run(measure(name, services.url, key, cluster.roll))
        finally:
            cluster.stop()
    outcome.table.print()
    return outcome.broken + report_pods(cluster, away_s)


def report_services(deployment: Deployment) -> list[str]:
    columns = [
        "service",
        "user",
        "healthy after",
        "ended with",
        "after, of",
        "memory, of",
        "threads, of",
    ]
    table = Table(f"docker-compose.yml, profile {deployment.profile}: services", columns)
    broken = []
    for service in deployment.services.values():
        for row in describe_service(service):
            table.add(*row)
        broken += judge_service(service)
    table.print()
    return broken


def describe_service(service: Service) -> list[list[str]]:
    limits = service.config["deploy"]["resources"]["limits"]
    memory = max(container.most_memory for container in service.containers)
    threads = max(container.most_threads for container in service.containers)
    slowest = max(seconds for _, seconds in service.stopped)
    spec = service.specs[0]
    codes = sorted({code for code, _ in service.stopped})
    return [
        [
            f"{service.name} × {len(service.specs)}",
            spec.user,
            f"{service.healthy_after_s:.1f} s",
            ", ".join(str(code) for code in codes),
            f"{slowest:.1f} s, {spec.grace_s:.0f} s",
            f"{memory / 2**20:.0f} MiB, {int(limits['memory']) / 2**20:.0f} MiB",
            f"{threads}, {limits['pids']}",
        ]
    ]


def judge_service(service: Service) -> list[str]:
    limits = service.config["deploy"]["resources"]["limits"]
    broken = []
    if any(code for code, _ in service.stopped):
        broken.append(f"{service.name} did not end well within its grace period: {service.stopped}")
    for container in service.containers:
        if container.most_memory > int(limits["memory"]) or container.most_threads > limits["pids"]:
            broken.append(f"{service.name} used more than its limits")
        broken += find_defects(service.name, container)
    return broken


def report_pods(cluster: Cluster, away_s: float) -> list[str]:
    grace_s = manifests.pod()["terminationGracePeriodSeconds"]
    columns = ["container", "ready after", "ended with", "after, of", "memory, of"]
    table = Table("config/kubernetes/deployment.yaml: pods", columns)
    broken = []
    for name in ("server", "clock"):
        limit = to_bytes(manifests.container(name)["resources"]["limits"]["memory"])
        everyone = [*cluster.pods, *cluster.ended]
        memory = max(pod.containers[name].most_memory for pod in everyone)
        ended = [pod.ended[name] for pod in cluster.ended]
        codes = ", ".join(str(code) for code in sorted({code for code, _ in ended}))
        slowest = max(seconds for _, seconds in ended)
        started_s = max(pod.started_s for pod in everyone)
        table.add(
            f"{name} × {len(everyone)}",
            f"{started_s:.1f} s",
            codes,
            f"{slowest:.1f} s, {grace_s} s",
            f"{memory / 2**20:.0f} MiB, {limit / 2**20:.0f} MiB",
        )
        if any(code for code, _ in ended) or memory > limit:
            broken.append(f"{name} of a pod did not end well, or used more than its limit: {ended}")
        for pod in everyone:
            broken += find_defects(name, pod.containers[name])
    table.print()
    print(f"  database away: pods not ready but alive; ready again {away_s:.1f} s after it was")
    return broken


def find_defects(name: str, container: Container) -> list[str]:
    """Tracebacks in what it wrote."""
    log = container.log
    where = log.find("Traceback")
    return [] if where < 0 else [f"{name} wrote a traceback:\n{log[where : where + 2000]}"]


if __name__ == "__main__":
    sys.exit(main())
