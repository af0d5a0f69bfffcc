"""The command `ui`: a link that signs a person in to the dashboard, once."""

from __future__ import annotations

from pathlib import Path

import httpx

from shared_context_server.server import open_server
from shared_context_server.settings import Settings, read_secrets
from tests.cli.conftest import Run
from tests.ui.conftest import browser_of, text_of


async def test_the_link_signs_in_as_an_admin_of_the_data_dirs_server(
    scs: Run, tmp_path: Path
) -> None:
    scs("migrate")
    printed = scs("ui", "--no-open", "--agent-id", "ann", "--url", "http://127.0.0.1:9/")

    assert printed.returncode == 0
    link = printed.stdout.strip()
    assert link.startswith("http://127.0.0.1:9/ui/login?code=ui_")
    assert "No server answers at http://127.0.0.1:9." in printed.stderr
    keys = {name.lower(): key for name, key in read_secrets(tmp_path / "data/secrets.env").items()}
    code = httpx.URL(link).params["code"]
    async with (
        open_server(Settings(data_dir=tmp_path / "data", **keys)) as server,
        browser_of(server) as browser,
    ):
        entered = await browser.post("/ui/login", data={"code": code})
        page = text_of(await browser.get("/ui/sessions"))
    assert entered.status_code == 303
    assert "ann" in page
    assert "Admin" in page


def test_what_is_no_address_is_refused(scs: Run) -> None:
    scs("migrate")
    refused = scs("ui", "--no-open", "--url", "scs.example.org")

    assert refused.returncode == 2
    assert "--url" in refused.stderr
    assert refused.stdout == ""
