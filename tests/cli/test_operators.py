"""`token`, `keys`, `status` and `migrate`: what the people who run a server do with it."""

from __future__ import annotations

import http.server
import json
import sqlite3
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Run, Serve


def use_token(url: str, token: str, tool: str, **arguments: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(f"{url}/mcp/tool/{tool}", headers=headers, json=arguments)


def use_key(url: str, key: str, tool: str, **arguments: object) -> httpx.Response:
    return httpx.post(f"{url}/mcp/tool/{tool}", headers={"X-API-Key": key}, json=arguments)


def test_token_prints_a_bearer_that_the_server_takes(serve: Serve, scs: Run) -> None:
    with serve() as server:
        answer = scs("token", "--agent-id", "alice", "--agent-type", "claude")
        assert answer.returncode == 0
        assert answer.stdout.count("\n") == 1
        made = use_token(server.url, answer.stdout.strip(), "create_session", purpose="x")
        assert made.json()["created_by"] == "alice"


def test_token_gives_the_permissions_that_are_asked_for(serve: Serve, scs: Run) -> None:
    with serve() as server:
        reader = scs("token", "--agent-id", "a", "--permissions", "read").stdout.strip()
        assert use_token(server.url, reader, "create_session", purpose="x").status_code == 403
        admin = scs("token", "--agent-id", "a", "--permissions", "read,admin").stdout.strip()
        assert use_token(server.url, admin, "get_audit_log").status_code == 200


def test_token_tells_all_there_is_as_json(scs: Run) -> None:
    issued = json.loads(scs("token", "--agent-id", "alice", "--json").stdout)
    assert issued["agent_id"] == "alice"
    assert issued["permissions"] == ["read", "write"]
    assert issued["agent_handle"].startswith("agt_")
    assert issued["expires_in"] == 86_400


def test_a_key_for_a_database_in_memory_is_refused_instead_of_lost(scs: Run) -> None:
    answer = scs("keys", "create", "--agent-id", "a", DATABASE_URL="sqlite:///:memory:")
    assert answer.returncode == 2
    assert "no other command can reach it" in answer.stderr
    assert answer.stdout == ""


def test_an_unknown_permission_is_refused_by_name(scs: Run) -> None:
    answer = scs("token", "--agent-id", "a", "--permissions", "read,fly")
    assert answer.returncode == 2
    assert "fly" in answer.stderr
    assert "read, write, admin" in answer.stderr
    assert answer.stdout == ""


def test_a_created_key_opens_the_running_server_for_its_agent_only(serve: Serve, scs: Run) -> None:
    with serve() as server:
        key = scs("keys", "create", "--agent-id", "ci", "--permissions", "read").stdout.strip()
        issued = use_key(
            server.url, key, "authenticate_agent", agent_id="ci", requested_permissions=["write"]
        ).json()
        assert issued["permissions"] == []
        other = use_key(server.url, key, "authenticate_agent", agent_id="somebody-else")
        assert other.json()["code"] == "PERMISSION_DENIED"


def test_who_uses_the_key_of_a_pattern_is_told_to_name_the_agent(serve: Serve, scs: Run) -> None:
    with serve() as server:
        created = scs("keys", "create", "--agent-id", "team-*")
        assert "SCS_AGENT_ID, --as, or X-Agent-ID" in created.stderr
        key = {"SCS_API_KEY": created.stdout.strip(), "SCS_URL": server.url}
        refused = scs("sessions", **key)
        assert (refused.returncode, refused.stdout) == (4, "")
        assert "for agents whose ids match 'team-*'. Name an agent" in refused.stderr
        assert "--as" in refused.stderr
        for command in (("hook", "--verbose"), ("wait", "nope", "--timeout", "9")):
            assert "that the key is for with --agent-id" in scs(*command, **key).stderr
        assert scs("sessions", "--as", "team-a", **key).returncode == 0


def test_a_revoked_key_is_refused_within_a_second(serve: Serve, scs: Run) -> None:
    with serve() as server:
        created = scs("keys", "create", "--agent-id", "ci")
        key, key_id = created.stdout.strip(), created.stderr.split(":")[0]
        assert use_key(server.url, key, "list_sessions").status_code == 200
        assert scs("keys", "revoke", key_id).returncode == 0
        revoked_at = time.monotonic()
        while use_key(server.url, key, "list_sessions").status_code == 200:
            assert time.monotonic() - revoked_at < 1
        again = scs("keys", "revoke", key_id)
    assert again.returncode == 5
    assert f"shared-context-server: The key {key_id} is revoked already." in again.stderr


@pytest.mark.parametrize("command", ["revoke", "rotate"])
def test_a_key_that_is_not_there_is_told_alike_by_all_commands(scs: Run, command: str) -> None:
    scs("migrate")
    answer = scs("keys", command, "nope")
    assert answer.returncode == 3
    assert answer.stderr.startswith("shared-context-server: There is no key nope.")


def test_a_server_that_refuses_a_key_is_asked_and_the_key_of_an_agent_helps(
    serve: Serve, scs: Run
) -> None:
    with serve(IDENTITY="bound") as server:
        where = ("--data-dir", str(server.data_dir))
        refused = scs("client-config", "env", "--agent-id", "ci", *where)
        assert refused.returncode == 0
        assert 'SCS_API_KEY="$(scs keys create --agent-id ci --data-dir ' in refused.stderr
        key = scs("keys", "create", "--agent-id", "ci").stdout.strip()
        taken = scs("client-config", "env", "--agent-id", "ci", *where, SCS_API_KEY=key)
        assert "refuses" not in taken.stderr
        assert f"SCS_API_KEY={key}\nexport SCS_AGENT_ID=ci" in taken.stdout.replace('"', "")
        # Without a name the key's own agent counts.
        made = scs("post", "nope", "hi", SCS_API_KEY=key)
        assert made.returncode == 3, made.stderr
        wrong = scs("sessions", SCS_ADMIN_API_KEY="wrong-key-of-an-admin", SCS_API_KEY=key)
    assert wrong.returncode == 4
    assert "The key is that of SCS_ADMIN_API_KEY" in wrong.stderr


def test_a_data_dir_that_the_server_does_not_use_is_not_taken_for_its_own(
    serve: Serve, scs: Run, tmp_path: Path
) -> None:
    typo = tmp_path / "typo"
    with serve() as server:
        port = server.url.rpartition(":")[2]
        other = scs("status", "--data-dir", str(typo), HTTP_PORT=port)
        link = scs("ui", "--no-open", "--data-dir", str(typo))
    assert other.returncode == 1
    assert "none runs on this data dir; another one answers" in other.stdout
    assert link.returncode == 2
    assert "There is no database" in link.stderr
    assert not typo.exists()


def test_listed_keys_show_what_they_are_but_not_themselves(scs: Run) -> None:
    created = scs("keys", "create", "--agent-id", "ci", "--permissions", "write,read")
    key, key_id = created.stdout.strip(), created.stderr.split(":")[0]
    listed = scs("keys", "list").stdout
    assert listed.split("\t")[:3] == [key_id, "ci", "read,write"]
    assert "active" in listed
    assert key not in listed
    scs("keys", "revoke", key_id)
    assert "revoked" in scs("keys", "list").stdout


def test_a_key_is_bound_to_a_type_and_listed_with_it(scs: Run) -> None:
    created = scs("keys", "create", "--agent-id", "ci", "--agent-type", "builder")
    assert "for ci of type builder" in created.stderr
    scs("keys", "create", "--agent-id", "other")
    types = [line.split("\t")[5] for line in scs("keys", "list").stdout.splitlines()]
    assert types == ["builder", "-"]
    refused = scs("keys", "create", "--agent-id", "ci", "--agent-type", "bu\u200bilder")
    assert refused.returncode == 2
    assert "agent_type" in refused.stderr


@pytest.mark.parametrize("command", ["list", "revoke key_0123456789abcdef"])
def test_keys_of_a_store_that_is_not_there_are_refused_and_nothing_is_made(
    scs: Run, tmp_path: Path, command: str
) -> None:
    answer = scs("keys", *command.split(), "--data-dir", str(tmp_path / "mistyped"))
    assert answer.returncode == 2
    assert f"no database at sqlite:///{tmp_path}/mistyped/shared_context.db" in answer.stderr
    assert "--data-dir" in answer.stderr
    assert not (tmp_path / "mistyped").exists()


def test_a_data_dir_that_is_a_file_is_named(scs: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for data_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        answer = scs("token", "--agent-id", "a", "--data-dir", str(data_dir))
        assert answer.returncode == 2
        assert f"DATA_DIR: {data_dir} cannot be a directory" in answer.stderr


@pytest.mark.parametrize("command", ["keys create", "token"])
def test_a_wrong_argument_is_told_without_the_words_for_programs(scs: Run, command: str) -> None:
    answer = scs(*command.split(), "--agent-id", "")
    assert answer.returncode == 2
    assert "agent_id" in answer.stderr
    assert "details" not in answer.stderr


def test_a_name_no_agent_can_have_is_refused(scs: Run) -> None:
    answer = scs("keys", "create", "--agent-id", " spaced ")
    assert answer.returncode == 2
    assert "agent_id" in answer.stderr


def test_status_of_a_running_server(serve: Serve, scs: Run) -> None:
    with serve() as server:
        answer = scs("status", HTTP_PORT=server.url.rsplit(":", 1)[1])
    assert answer.returncode == 0
    told = dict(line.split(maxsplit=1) for line in answer.stdout.splitlines())
    assert told["server"] == server.url
    assert (told["health"], told["ready"]) == ("ok", "ready")
    assert told["data"] == str(server.data_dir)
    assert told["schema"].isdigit()


def test_status_without_a_server(scs: Run, tmp_path: Path) -> None:
    answer = scs("status", "--port", "1")
    assert answer.returncode == 1
    assert "no answer" in answer.stdout
    assert "none yet" in answer.stdout
    assert not (tmp_path / "data").exists()


def test_status_of_something_else(scs: Run) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), SomethingElse) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        answer = scs("status", "--port", str(other.server_port))
        other.shutdown()
    assert answer.returncode == 1
    assert "answers, but not as this server does" in answer.stdout
    assert "404" in answer.stdout


class SomethingElse(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_status_tells_of_a_database_that_cannot_be_read(scs: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shared_context.db").write_bytes(b"not a database at all" * 100)
    answer = scs("status", "--port", "1")
    assert "unknown" in answer.stdout
    assert "Traceback" not in answer.stderr


def test_migrate_makes_the_schema_once(scs: Run) -> None:
    assert scs("migrate", "--check").returncode == 1
    assert scs("migrate").stdout.startswith("0001_")
    assert scs("migrate").stdout == "The schema is up to date.\n"
    assert scs("migrate", "--check").returncode == 0


def test_migrate_refuses_a_schema_from_the_future(scs: Run, tmp_path: Path) -> None:
    scs("migrate")
    with sqlite3.connect(tmp_path / "data" / "shared_context.db") as connection:
        connection.execute(
            "INSERT INTO schema_migrations SELECT number + 1000, name, checksum, applied_at"
            " FROM schema_migrations"
        )
    connection.close()
    answer = scs("migrate")
    assert answer.returncode == 2
    assert "newer" in answer.stderr


@pytest.mark.parametrize("command", ["migrate", "status", "token --agent-id a"])
def test_an_unknown_storage_is_refused(scs: Run, command: str) -> None:
    answer = scs(*command.split(), "--database-url", "oracle://user:hunter2@there/db")
    if command == "status":
        assert "hunter2" not in answer.stdout
        assert "oracle://user:***@there/db" in answer.stdout
    else:
        assert answer.returncode == 2
        assert "DATABASE_URL" in answer.stderr
    assert "hunter2" not in answer.stderr


@pytest.mark.parametrize("host", ["not a host", "x" * 70, "\u2024"])
def test_status_says_of_a_host_that_cannot_be_that_it_does_not_answer(scs: Run, host: str) -> None:
    answer = scs("status", SCS_HTTP_HOST=host)
    assert answer.returncode == 1
    assert "no answer" in answer.stdout
    assert "Traceback" not in answer.stderr


def test_a_key_is_rotated_and_listed_with_its_successor_and_its_expiry(scs: Run) -> None:
    made = json.loads(
        scs(
            *("keys", "create", "--agent-id", "team-*", "--expires-in", "90d"),
            *("--label", "review", "--json"),
        ).stdout
    )
    assert (made["is_pattern"], made["label"], made["status"]) == (True, "review", "active")
    rotated = scs("keys", "rotate", made["id"], "--overlap", "1h")
    new_key = rotated.stdout.strip()
    assert new_key.startswith("scs_")
    assert "1h" in rotated.stderr
    old, new = json.loads(scs("keys", "list", "--json").stdout)["keys"]
    assert (old["status"], old["replaced_by"]) == ("replaced", new["id"])
    assert old["expires_at"] < new["expires_at"]
    assert (new["agent_id"], new["label"], new["last_used_at"]) == ("team-*", "review", None)
    assert scs("keys", "rotate", made["id"]).returncode == 2
    assert scs("keys", "rotate", new["id"], "--overlap", "0").returncode == 0
    assert [one["status"] for one in json.loads(scs("keys", "list", "--json").stdout)["keys"]] == [
        "replaced",
        "expired",
        "active",
    ]


@pytest.mark.parametrize(
    "options, named",
    [
        (["--expires-in", "soon"], "--expires-in"),
        (["--expires-in", "99999d"], "expires_at"),
        (["--expires-at", "tomorrow"], "--expires-at"),
        (["--expires-at", "2001-01-01"], "expires_at"),
        (["--expires-in", "1d", "--expires-at", "2040-01-01"], "--expires-at"),
        (["--label", "x" * 201], "label"),
    ],
)
def test_a_wrong_expiry_or_label_is_told_by_name(scs: Run, options: list[str], named: str) -> None:
    refused = scs("keys", "create", "--agent-id", "ci", *options)
    assert refused.returncode == 2
    assert named in refused.stderr
    assert refused.stdout == ""
