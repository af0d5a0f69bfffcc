"""What the linters of `make lint-deploy` cannot know: that the files fit each other and the server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import httpx
import pytest
import yaml

import shared_context_server
from shared_context_server.auth.middleware.host_origin import HostOriginMiddleware
from shared_context_server.cli.http import GRACE_S, UVICORN_OPTIONS
from shared_context_server.environment import READ_UNPREFIXED
from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings, load_settings
from shared_context_server.storage import find_schema_status
from shared_context_server.tools.catalog import TOOLS
from tests.cli.conftest import PATIENCE_S, Serve
from tests.deploy import manifests
from tests.deploy.dockerfile import read_stages
from tests.deploy.manifests import KUBERNETES, ROOT, container, pod, services

SETTINGS = {name.upper() for name in Settings.model_fields}
NOT_OURS = {
    READ_UNPREFIXED,
    "HOME",
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
}
KEYS = {"API_KEY", "ADMIN_API_KEY", "JWT_SECRET_KEY"}
OUR_SERVICES = [name for name, service in services().items() if "build" in service]
SERVERS = ["server", "replica"]
DEFAULT_MAX_CONNECTIONS = 100 - 3  # PostgreSQL's, without those reserved for its superuser


def environment_of(source: str) -> set[str]:
    match source:
        case "Dockerfile":
            return set(manifests.image_environment())
        case "configmap":
            return set(manifests.read_manifest("configmap")["data"])
        case "secret":
            return manifests_secret() | {"POSTGRES_LISTEN_URL"}
        case "production.env":
            return manifests.named_in(ROOT / "config/production.env")
        case _:
            return set(services()[source]["environment"])


def manifests_secret() -> set[str]:
    return set(manifests.read_manifest("secret.example")["stringData"])


@pytest.mark.parametrize(
    "source", ["Dockerfile", "configmap", "secret", "production.env", *OUR_SERVICES]
)
def test_every_variable_is_a_setting(source: str) -> None:
    assert environment_of(source) - NOT_OURS <= SETTINGS


def test_in_the_image_whatever_is_started_takes_what_the_image_sets() -> None:
    """`serve --transport stdio` and client-config find the volume and the port by it."""
    assert manifests.image_environment()[READ_UNPREFIXED] == "true"


def test_the_example_of_compose_names_what_compose_reads() -> None:
    named = manifests.named_in(ROOT / "config/compose.env.example")
    assert named == set(manifests.compose_variables()) | {"COMPOSE_PROFILES"}


def test_secrets_have_no_defaults() -> None:
    secrets = {*KEYS, "POSTGRES_PASSWORD"}
    for name in secrets:
        assert all(rest.startswith(":?") for rest in manifests.compose_variables()[name]), name
        assert manifests.compose_example()[name] == "", name
    for service in services().values():
        for name, value in service.get("environment", {}).items():
            if name in secrets:
                assert value.startswith(f"${{{name}:?"), name


def test_all_servers_of_a_deployment_share_their_keys() -> None:
    assert all(services()[name]["environment"].keys() >= KEYS for name in SERVERS)
    assert manifests_secret() >= KEYS | {"DATABASE_URL"}


def test_the_values_of_the_secret_s_example_are_refused() -> None:
    for name, value in manifests.read_manifest("secret.example")["stringData"].items():
        with pytest.raises(ConfigurationError, match=name):
            find_schema_status(load_settings(**{name.lower(): value}))


def test_the_two_deployments_do_not_start_together() -> None:
    published = {
        name: set(service["profiles"]) for name, service in services().items() if "ports" in service
    }
    assert published == {"server": {"sqlite"}, "proxy": {"postgres"}}
    assert all(service["profiles"] for service in services().values())
    assert manifests.compose_example()["COMPOSE_PROFILES"] == "sqlite"


def test_ports_are_published_to_this_machine_only() -> None:
    for service in services().values():
        for port in service.get("ports", []):
            assert port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:")
    assert manifests.compose_example()["PUBLISH_ADDRESS"] == "127.0.0.1"


def test_ports_agree() -> None:
    port = manifests.final_stage().value("EXPOSE")
    assert manifests.image_environment()["HTTP_PORT"] == port
    assert services()["server"]["ports"][0].endswith(f":{port}")
    assert services()["replica"]["expose"] == [port]
    (upstream,) = [s for s in manifests.nginx_directive("server") if s.startswith("replica")]
    assert upstream.startswith(f"replica:{port} ")
    assert services()["proxy"]["ports"][0].endswith(f":{manifests.nginx_directive('listen')[0]}")
    assert container("server")["ports"] == [{"name": "http", "containerPort": int(port)}]
    (rule,) = manifests.read_manifest("networkpolicy")["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": int(port)}]


def test_the_image_s_user_is_everywhere_the_same() -> None:
    uid, gid = manifests.final_stage().value("USER").split(":")
    context = pod()["securityContext"]
    assert context["runAsNonRoot"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (
        int(uid),
        int(gid),
        int(gid),
    )
    clock = manifests.read_compose()["volumes"]["clock"]["driver_opts"]["o"]
    owned = [clock, *(t for name in OUR_SERVICES for t in services()[name]["tmpfs"])]
    for options in owned:
        if "uid=" in options:
            assert f"uid={uid},gid={gid}" in options


def test_every_service_can_do_little() -> None:
    for name, service in services().items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert name in SERVERS or "healthcheck" in service, name
        assert name in OUR_SERVICES or service["user"] not in ("root", "0"), name


def test_every_container_of_the_pod_can_do_little() -> None:
    for entry in pod()["containers"]:
        assert entry["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in entry["resources"]["limits"]


def test_the_clock_and_its_readers_share_memory() -> None:
    for name in OUR_SERVICES:
        mounts = [v for v in services()[name]["volumes"] if isinstance(v, dict)]
        assert [(v["source"], v["target"]) for v in mounts] == [("clock", "/dev/shm")]
    for entry in pod()["containers"]:
        assert {"name": "clock", "mountPath": "/dev/shm"} in entry["volumeMounts"]
    (memory,) = [volume for volume in pod()["volumes"] if volume["name"] == "clock"]
    assert memory["emptyDir"]["medium"] == "Memory"


def test_everybody_waits_for_a_shutdown_long_enough() -> None:
    (pause,) = [int(w) for w in container("server")["lifecycle"]["preStop"]["exec"]["command"][1:]]
    assert pod()["terminationGracePeriodSeconds"] > pause + GRACE_S
    for name in SERVERS:
        assert manifests.to_seconds(services()[name]["stop_grace_period"]) > GRACE_S
    (waits,) = manifests.nginx_directive("worker_shutdown_timeout")
    grace_s = manifests.to_seconds(services()["proxy"]["stop_grace_period"])
    assert GRACE_S < manifests.to_seconds(waits) < grace_s


def test_the_proxy_is_as_patient_as_the_server() -> None:
    (tool,) = [tool for tool in TOOLS if tool.name == "wait_for_messages"]
    longest_wait_s = tool.input_schema["properties"]["timeout_seconds"]["maximum"]
    waits = [
        manifests.to_seconds(value) for value in manifests.nginx_directive("proxy_read_timeout")
    ]
    assert len([wait for wait in waits if wait > longest_wait_s]) == 2  # /mcp, /events
    keeps_s = UVICORN_OPTIONS["timeout_keep_alive"]
    assert manifests.to_seconds(manifests.nginx_directive("keepalive_timeout")[0]) < keeps_s


def test_the_proxy_s_body_limit_is_the_server_s() -> None:
    limit = Settings.model_fields["max_body_bytes"].default
    assert manifests.nginx_directive("client_max_body_size") == [f"{limit // 2**20}m"]
    assert "MAX_BODY_BYTES" not in manifests.compose_variables()


def test_the_image_is_everywhere_that_of_this_version() -> None:
    image = f"shared-context-server:{shared_context_server.__version__}"
    assert {entry["image"] for entry in pod()["containers"]} == {image}
    assert manifests.compose_variables()["IMAGE"] == {f":-{image}"}
    (tag,) = [entry["newTag"] for entry in manifests.read_manifest("kustomization")["images"]]
    assert tag == shared_context_server.__version__
    assert f"VERSION={shared_context_server.__version__}" in manifests.final_stage().values("ARG")


def test_images_of_others_are_pinned() -> None:
    bases = {stage.image for stage in read_stages()}
    others = [s["image"] for name, s in services().items() if name not in OUR_SERVICES]
    for image in [*bases, *others]:
        assert re.fullmatch(r"[a-z]+:\d+(\.\d+)*-[a-z-]+", image), image


def test_the_kustomization_has_all_manifests_but_the_examples() -> None:
    found = {path.name for path in KUBERNETES.glob("*.yaml")} - {
        "kustomization.yaml",
        "secret.yaml",
    }
    listed = set(manifests.read_manifest("kustomization")["resources"])
    assert listed == {name for name in found if ".example." not in name}


def test_all_manifests_are_of_one_namespace_and_app() -> None:
    for path in KUBERNETES.glob("*.yaml"):
        manifest = yaml.safe_load(path.read_text())
        if manifest["kind"] not in ("Namespace", "Kustomization"):
            assert manifest["metadata"]["namespace"] == "shared-context", path.name
    labels = manifests.read_manifest("deployment")["spec"]["template"]["metadata"]["labels"]
    for name in ("service", "pdb", "networkpolicy"):
        spec: dict[str, Any] = manifests.read_manifest(name)["spec"]
        selector = spec.get("selector", spec.get("podSelector"))
        assert selector.get("matchLabels", selector) == labels, name


def test_the_connections_of_all_pods_fit_into_the_database() -> None:
    pool = int(manifests.read_manifest("configmap")["data"]["POSTGRES_POOL_SIZE"])
    surge = manifests.read_manifest("deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    pods = manifests.read_manifest("hpa")["spec"]["maxReplicas"] + surge
    assert pods * (pool + 1) <= DEFAULT_MAX_CONNECTIONS


async def test_a_probe_s_host_is_let_in() -> None:
    """The kubelet asks the pod's address by that address."""
    called: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope["path"])

    guard = HostOriginMiddleware(app, allowed_hosts=(), allowed_origins=())
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/ready",
        "headers": [(b"host", b"10.1.2.3:8000")],
        "server": ("10.1.2.3", 8000),
    }
    await guard(scope, _never, _never)
    assert called == ["/ready"]


async def _never(*_: Any) -> Any:
    raise AssertionError("the guard answered by itself")


def test_probes_and_the_healthcheck_ask_for_what_there_is(serve: Serve) -> None:
    probes = {name: container("server")[name] for name in container("server") if "Probe" in name}
    assert set(probes) == {"startupProbe", "readinessProbe", "livenessProbe"}
    with serve() as server:
        for probe in probes.values():
            assert httpx.get(f"{server.url}{probe['httpGet']['path']}").status_code == 200
        port = server.url.rpartition(":")[2]
        assert run_healthcheck(port) == 0
    assert run_healthcheck(port) != 0


def run_healthcheck(port: str) -> int:
    program, *arguments = manifests.image_healthcheck()
    assert program == "python"
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"HTTP_PORT": port},
        stderr=subprocess.DEVNULL,
        timeout=PATIENCE_S,
        check=False,
    ).returncode


def test_what_the_image_copies_is_let_into_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copies = [copy.split() for stage in read_stages() for copy in stage.values("COPY")]
    sources = {path for copy in copies if not copy[0].startswith("--from") for path in copy[:-1]}
    assert sources
    assert sources == allowed
    assert all((ROOT / path).exists() for path in sources)
