"""TLS to the database, which takes nothing else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage import open_copier, open_storage
from tests.postgres import DatabaseServer
from tests.storage.builders import add_message, add_session

# The server of the tests is built without TLS. What stands before it speaks its beginning, which is
# all there is of TLS in PostgreSQL's protocol ("SSL Session Encryption" in its manual).
TLS_REQUEST = bytes([0, 0, 0, 8, 4, 210, 22, 47])
REFUSAL = b"SFATAL\0C28000\0Mno pg_hba.conf entry, no encryption\0\0"
PATIENCE_S = 15.0  # half of what a start waits for a database that might be starting


@dataclass(frozen=True)
class Front:
    """Before a database: takes who speaks TLS, as `localhost`."""

    port: int
    database_url: str
    authority: Path

    def url(self, *, host: str = "localhost", **parameters: str) -> str:
        path = urlsplit(self.database_url).path
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://postgres:secret-password@{host}:{self.port}{path}?{query}"


@asynccontextmanager
async def open_front(database_url: str, directory: Path) -> AsyncIterator[Front]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    address = urlsplit(database_url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(len(TLS_REQUEST)) != TLS_REQUEST:
            writer.write(b"E" + (len(REFUSAL) + 4).to_bytes(4) + REFUSAL)
            writer.close()
            return
        writer.write(b"S")
        with suppress(OSError):  # who does not trust the certificate hangs up
            await writer.start_tls(context)
            behind = await asyncio.open_connection(address.hostname, address.port)
            await asyncio.gather(_copy(reader, behind[1]), _copy(behind[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Front(port, database_url, directory / "authority.pem")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
async def front(postgres: DatabaseServer, tmp_path: Path) -> AsyncIterator[Front]:
    with postgres.new_database() as settings:
        url = settings.get("postgres_listen_url") or settings["database_url"]
        async with open_front(url, tmp_path) as front:
            yield front


async def test_everything_goes_over_tls(front: Front, tmp_path: Path) -> None:
    url = front.url(sslmode="verify-full", sslrootcert=str(front.authority))
    settings = Settings(data_dir=tmp_path, database_url=url)
    async with asyncio.timeout(PATIENCE_S), open_storage(settings) as store:
        await add_session(store)
        assert (await add_message(store)).seq == 1
        is_listening = asyncio.Event()
        store.changes.open_wakeup_channel(is_listening.set).start_listening()
        await is_listening.wait()
        async with open_copier(settings, read_only=True) as copier, copier.open_snapshot():
            pass


@pytest.mark.parametrize(
    "host, parameters, said",
    [
        ("localhost", {"sslmode": "disable"}, "no encryption"),
        ("localhost", {"sslmode": "verify-full", "sslrootcert": "{other}"}, "certificate verify"),
        ("127.0.0.1", {"sslmode": "verify-full", "sslrootcert": "{authority}"}, "'127.0.0.1'"),
        ("localhost", {"sslmode": "verify-full", "sslrootcert": "{none}"}, "sslrootcert"),
        ("localhost", {"sslmode": "verify-full", "sslrootcert": "{python}"}, "certificate"),
    ],
)
async def test_what_is_wrong_with_tls_is_said_at_once_in_one_line(
    front: Front, tmp_path: Path, host: str, parameters: dict[str, str], said: str
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    files = {
        "authority": front.authority,
        "other": tmp_path / "other.pem",
        "none": tmp_path / "none.pem",
        "python": __file__,
    }
    named = {name: value.format(**files) for name, value in parameters.items()}
    settings = Settings(data_dir=tmp_path, database_url=front.url(host=host, **named))
    with pytest.raises(ConfigurationError, match="^DATABASE_URL: .*" + said) as raised:
        async with asyncio.timeout(PATIENCE_S), open_storage(settings):
            pass
    assert "\n" not in str(raised.value)
    assert "secret-password" not in str(raised.value)
