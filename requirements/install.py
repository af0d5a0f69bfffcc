"""Install pinned, hashed requirements into a virtual environment with a pinned installer.

    python requirements/install.py --installer .venv/installer --into .venv \
        requirements/dev.txt --editable .

Needs nothing but Python >= 3.11 with venv; make setup, the other environments of the
Makefile and the image's build use it. The installer is uv: pip, whatever its version, only
fetches uv's wheel, by the hash in requirements/uv.txt. uv reads none of pip's
configuration, so index, proxy, certificates and the like are handed to it. Where uv cannot
serve (no wheel for this platform, a setting of pip it has no counterpart for, a proxy or
certificate that only pip gets along with), the pip of requirements/pip.txt installs
instead, which takes longer, and a line says so.

Old versions of pip are not used for the requirements themselves: with --require-hashes,
those before 24 take the newest release of a package that something asks for with an extra,
instead of the pinned one, and then refuse it for lacking a hash.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent

# pip's setting -> the variable that tells uv the same. Several values become a list with
# the separator given. A variable that the user has set already stays as it is.
COUNTERPARTS = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_EXTRA_INDEX_URL", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": ("UV_NO_INDEX", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "client-cert": ("SSL_CLIENT_CERT", " "),
    "proxy": ("ALL_PROXY", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "retries": ("UV_HTTP_RETRIES", " "),
}

# Settings of pip that change nothing here: how it speaks, where it caches, and what chooses
# between versions (each version is pinned by its hash).
WITHOUT_EFFECT = {
    *("disable-pip-version-check", "no-python-version-warning", "require-virtualenv"),
    *("no-input", "quiet", "verbose", "progress-bar", "no-color", "log", "debug"),
    *("cache-dir", "no-cache-dir", "root-user-action", "break-system-packages"),
    *("constraint", "prefer-binary", "upgrade-strategy", "pre", "require-hashes"),
    *("no-warn-script-location", "no-warn-conflicts", "compile", "no-compile"),
    *(
        "use-feature",
        "use-deprecated",
        "exists-action",
        "format",
        "src",
        "user",
        "config-file",
        "isolated",
    ),
}

DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|os error (28|122)\b")
# What pip and uv print where an index cannot be reached.
UNREACHED = re.compile(
    r"Connection refused|Failed to establish a new connection|NameResolutionError"
    r"|Temporary failure in name resolution|Name or service not known|dns error"
    r"|Network is unreachable|[Tt]imed? ?out|ProxyError|Cannot connect to proxy"
    r"|CERTIFICATE_VERIFY_FAILED|invalid peer certificate|error sending request"
    r"|Request failed after|Failed to fetch"
)
NO_UV_HERE = re.compile(r"No matching distribution found for uv==")


class Failed(Exception):
    """A command ended with an error; `output` is what it printed."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output


def run(command: list[str | Path], env: dict[str, str] | None = None) -> str:
    """Return what the command printed; raise Failed when it cannot be run or fails."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as exc:  # not executable here, or the disk is full
        raise Failed(str(exc)) from exc
    if done.returncode:
        raise Failed(done.stdout)
    return done.stdout


def make_environment(directory: Path, *, with_pip: bool) -> None:
    """Make the virtual environment anew, whatever was there."""
    pip = [] if with_pip else ["--without-pip"]
    try:
        run([sys.executable, "-m", "venv", "--clear", *pip, directory])
    except Failed as exc:
        end_with(exc, str(directory))


def say(line: str) -> None:
    sys.stderr.write(f"setup: {line}\n")


def end(line: str) -> NoReturn:
    say(line)
    raise SystemExit(1)


def end_with(failure: Failed, what: str) -> NoReturn:
    """End with one line that says what to do, where that is known, else with the output."""
    output = failure.output.strip()
    if DISK_FULL.search(output):
        end(f"the disk is full, {what} needs more space; free some and run the same command again")
    if UNREACHED.search(output):
        end(
            f"no package index could be reached for {what}; connect this machine, or set pip's index-url, "
            f"proxy or cert (`pip config set global.index-url …`), and run the same command again"
        )
    sys.stderr.write(output + "\n")
    end(f"{what} could not be installed, for the reason above; then run the same command again")


def read_pip_settings(pip: list[str | Path]) -> dict[str, str]:
    """Return pip's settings for `install`, from its files and from PIP_… variables."""
    settings: dict[str, tuple[int, str]] = {}
    order = {"global": 0, "install": 1, ":env:": 2}  # a later one wins, as it does in pip
    for line in run([*pip, "config", "list"]).splitlines():
        found = re.match(r"(global|install|:env:)\.([a-z-]+)=(.+)$", line)
        if found:
            section, name, value = found.groups()
            rank = order[section]
            if rank >= settings.get(name, (0, ""))[0]:
                settings[name] = (rank, str(ast.literal_eval(value)))
    return {name: value for name, (_, value) in settings.items()}


def translate(settings: dict[str, str], environ: dict[str, str]) -> dict[str, str]:
    """Return an environment in which uv behaves as pip is told to.

    Raises LookupError, with pip's name of it, for a setting that uv has no counterpart for.
    """
    env = dict(environ)
    # All indexes count alike, as for pip; what is installed is decided by the hashes.
    env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    for bundle in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if bundle in environ:
            env.setdefault("SSL_CERT_FILE", environ[bundle])
    for name, value in settings.items():
        if name in COUNTERPARTS:
            variable, separator = COUNTERPARTS[name]
            if name == "no-index" and value.lower() in ("0", "false", "no", "off"):
                continue
            if name == "proxy":
                for proxy in ("HTTP_PROXY", "HTTPS_PROXY"):
                    env[proxy] = env[proxy.lower()] = value
            if variable not in environ:
                env[variable] = separator.join(value.split())
        elif name not in WITHOUT_EFFECT:
            raise LookupError(name)
    return env


def fetch(pip: list[str | Path], pin: str, directory: Path) -> Path:
    """Install the one wheel that `pin` names (uv.txt, pip.txt) into a directory of its own.

    Done once for each pin: a stamp holds the digest of the file that was installed.
    """
    pinned = HERE / pin
    target = directory / pinned.stem
    stamp = target / ".installed"
    digest = hashlib.sha256(pinned.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(target, ignore_errors=True)
        command = [*pip, "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
        run([*command, "--target", target, "-r", pinned])
        stamp.write_text(digest)
    return target


class Uv:
    """Installs with uv."""

    def __init__(self, directory: Path, into: Path, environ: dict[str, str]) -> None:
        self.name = "uv"
        self._command: list[str | Path] = [directory / "bin" / "uv", "pip"]
        self._python: list[str | Path] = ["--python", into / "bin" / "python"]
        self._index = ["--no-index"] if environ.pop("UV_NO_INDEX", None) else []
        self._env = environ

    def install(self, *arguments: str | Path) -> None:
        options = ["--quiet", "--compile-bytecode", *self._index]
        run([*self._command, "install", *options, *self._python, *arguments], self._env)

    def check(self) -> None:
        run([*self._command, "check", *self._python], self._env)


class Pip:
    """Installs with the pip of requirements/pip.txt."""

    def __init__(self, directory: Path, into: Path) -> None:
        self.name = "pip"
        self._command: list[str | Path] = [into / "bin" / "python", directory / "pip"]

    def install(self, *arguments: str | Path) -> None:
        options = ["--quiet", "--disable-pip-version-check", "--no-input"]
        run([*self._command, "install", *options, *arguments])

    def check(self) -> None:
        run([*self._command, "check"])


def open_uv(pip: list[str | Path], installer: Path, into: Path) -> Uv | None:
    """Return uv, told what pip is told; None, and a line why, where it cannot serve."""
    try:
        env = translate(read_pip_settings(pip), dict(os.environ))
        return Uv(fetch(pip, "uv.txt", installer), into, env)
    except LookupError as exc:
        say(
            f"uv has no counterpart of pip's setting {exc.args[0]!r}; installing with pip, which is slower"
        )
    except Failed as exc:
        if UNREACHED.search(exc.output) or not NO_UV_HERE.search(exc.output):
            end_with(exc, "uv")
        say("the package index has no uv for this platform; installing with pip, which is slower")
    return None


def open_pip(pip: list[str | Path], installer: Path, into: Path) -> Pip:
    try:
        return Pip(fetch(pip, "pip.txt", installer), into)
    except Failed as exc:
        end_with(exc, "pip")


def install_all(tool: Uv | Pip, options: argparse.Namespace) -> None:
    if options.requirements:
        binary = ["--only-binary", ":all:"] if options.only_binary else []
        pinned = [part for name in options.requirements for part in ("-r", name)]
        tool.install("--require-hashes", *binary, *pinned)
    local = ["--no-deps", "--no-build-isolation"]  # built with pinned tools only, from no index
    for path in options.editable:
        tool.install(*local, "--editable", path)
    for path in options.wheel:
        tool.install(*local, path)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--installer", type=Path, help="the folder that the installer is kept in")
    parser.add_argument("--into", type=Path, required=True, help="the virtual environment")
    parser.add_argument("--new", action="store_true", help="make the virtual environment anew")
    parser.add_argument("--without-pip", action="store_true", help="a new one gets no pip")
    parser.add_argument("--only-binary", action="store_true", help="compile nothing")
    parser.add_argument("--editable", action="append", default=[], metavar="PATH")
    parser.add_argument("--wheel", action="append", default=[], metavar="FILE")
    parser.add_argument("requirements", nargs="*", help="files with pins and hashes")
    options = parser.parse_args()
    options.installer = options.installer or options.into / "installer"

    os.environ["PIP_USER"] = "0"  # into the environment, whatever pip's configuration says
    if options.new:
        make_environment(options.into, with_pip=not options.without_pip)
    if options.requirements or options.editable or options.wheel or not options.new:
        install(options)


def install(options: argparse.Namespace) -> None:
    """Install what the options name, with uv where it serves and with pip otherwise."""
    pip: list[str | Path] = [sys.executable, "-m", "pip"]
    names = ", ".join([*options.requirements, *options.editable, *options.wheel])
    tool: Uv | Pip | None = open_uv(pip, options.installer, options.into)
    if tool is None:
        tool = open_pip(pip, options.installer, options.into)
    try:
        try:
            install_all(tool, options)
        except Failed as exc:
            if tool.name == "pip" or not UNREACHED.search(exc.output):
                raise
            say("uv could not reach the package index; trying pip, which is slower")
            tool = open_pip(pip, options.installer, options.into)
            install_all(tool, options)
    except Failed as exc:
        end_with(exc, names)
    if not names:
        return  # only the installer was asked for
    try:
        tool.check()
    except Failed as exc:
        sys.stderr.write(exc.output)
        end(f"{names}: what is pinned does not satisfy what is required; run make lock")


if __name__ == "__main__":
    try:
        main()
    except OSError as exc:
        end_with(Failed(str(exc)), "the environment")
