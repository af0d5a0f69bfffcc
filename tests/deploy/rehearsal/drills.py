"""What docs/deployment.md says can be done with the deployment on SQLite, done."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.rehearsal.compose import ROOT, Deployment
from tests.deploy.rehearsal.containers import Container, run_to_end

CALL_TIMEOUT_S = 30.0


@dataclass
class Drill:
    """One deployment on SQLite, and what was done with it so far."""

    deployment: Deployment
    directory: Path

    def call(self, tool: str, **arguments: object) -> dict[str, Any]:
        answer = httpx.post(
            f"{self.deployment.url}/mcp/tool/{tool}",
            headers={"X-API-Key": self.deployment.secrets["API_KEY"], "X-Agent-ID": "alice"},
            json=arguments,
            timeout=CALL_TIMEOUT_S,
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    @property
    def server(self) -> Container:
        return self.deployment.services["server"].containers[0]

    def execute(self, *command: str) -> str:
        """`docker compose exec server …`"""
        done = self.server.execute(list(command))
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def restart(self, name: str) -> None:
        service = self.deployment.services[name]
        service.stopped.append(service.containers[0].stop())
        container = self.deployment.start(service)
        self.deployment.wait_until_healthy(service, container)

    def all(self) -> list[str]:
        """Do everything; a line for each thing that works. Raises AssertionError at the first that does not."""
        done = []
        for step in (
            self.nothing_can_be_written_elsewhere,
            self.a_key_is_made_and_listed,
            self.data_outlives_the_server,
            self.servers_find_a_clock_that_was_started_anew,
            self.a_backup_is_restored,
        ):
            step()
            done.append(step.__name__.replace("_", " "))
        return done

    def nothing_can_be_written_elsewhere(self) -> None:
        for service in self.deployment.services.values():
            container = service.containers[0]
            for place in ("/", "/opt/venv", "/etc", "/dev"):
                done = container.execute(["touch", f"{place}/written"])
                assert done.returncode != 0, f"{service.name} can write to {place}"
            assert container.execute(["touch", "/tmp/written"]).returncode == 0, service.name
            status = container.execute(["cat", "/proc/1/status"]).stdout
            assert "NoNewPrivs:\t1" in status, service.name
            assert "CapBnd:\t0000000000000000" in status, service.name

    def a_key_is_made_and_listed(self) -> None:
        self.execute("shared-context-server", "keys", "create", "--agent-id", "carol")
        assert "carol" in self.execute("shared-context-server", "keys", "list")

    def data_outlives_the_server(self) -> None:
        session_id = self.call("create_session", purpose="it lasts")["session_id"]
        self.restart("server")
        assert self.call("get_session", session_id=session_id)["session"]["purpose"] == "it lasts"

    def servers_find_a_clock_that_was_started_anew(self) -> None:
        assert self.call("get_time")["source"] == "shared_memory"
        self.restart("clock")
        told = self.call("get_time")
        assert (told["source"], told["stale"]) == ("shared_memory", False), told

    def a_backup_is_restored(self) -> None:
        """The commands of the section Backups, with the file outside of the container in between."""
        kept = self.call("create_session", purpose="in the backup")["session_id"]
        self.execute("shared-context-server", "backup", "/data/backup.db")
        outside = self.directory / "backup.db"
        self.directory.mkdir(parents=True)
        # As `docker compose cp`: the mode stays, and the file belongs to whoever called it.
        shutil.copy(self.deployment.volumes / "data/backup.db", outside)
        self.execute("rm", "/data/backup.db")
        lost = self.call("create_session", purpose="after the backup")["session_id"]
        service = self.deployment.services["server"]
        service.stopped.append(self.server.stop())
        self.restore(outside)
        self.deployment.wait_until_healthy(service, self.deployment.start(service))
        found = json.dumps(self.call("list_sessions"))
        assert kept in found
        assert lost not in found

    def restore(self, backup: Path) -> None:
        """The command of the page: a container of the service, with the file as its input."""
        spec = self.deployment.services["server"].specs[0]
        shell, script = read_restore_command()
        command = [shell, "-c", script]
        run_to_end(replace(spec, command=command, stdin=backup), self.directory / "restore")


def read_restore_command() -> tuple[str, str]:
    """The entrypoint and the script of docs/deployment.md that restore a backup."""
    page = (ROOT / "docs/deployment.md").read_text()
    written = re.search(
        r"docker compose run --rm -T --entrypoint (\w+) server \\?\s*-c '([^']+)' <backup\.db", page
    )
    assert written is not None, "docs/deployment.md: the command that restores"
    return written[1], written[2]
