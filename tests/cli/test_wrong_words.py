"""What commands say of wrong words, in the names that the command line has."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import PATIENCE_S, Run


@pytest.mark.parametrize(
    "line, said",
    [
        ("search x --since yesterday", "--since: yesterday is no time such as"),
        ("audit list --since yesterday", "--since: yesterday is no time such as"),
        ("memory set k v --ttl 0", "--ttl: "),
        ("search x --threshold 900", "--threshold: "),
        ("tasks list", "SESSION is missing."),
        ("client-config", "CLIENT is missing."),
        ("completion", "SHELL is missing."),
        ("leases nope", "nope: the command takes no such argument."),
        ("post s hi --visibility private", "without --to reaches nobody"),
        ("post s   --", "The message is empty."),
        ("sessions --data-dir nowhere", "There is no database in "),
    ],
)
def test_a_wrong_word_is_named_as_the_command_line_spells_it(
    scs: Run, line: str, said: str
) -> None:
    scs("migrate")
    answer = scs(*line.split(" "))
    assert answer.returncode == (1 if line.startswith("sessions") else 2)
    assert said in answer.stderr


def test_a_key_that_looks_like_nothing_is_quoted(scs: Run) -> None:
    scs("migrate")
    scs("memory", "set", " \u200b", "1")
    listed = scs("memory", "list").stdout
    assert listed.split("\t")[0] == '" \\u200b"'


def test_ctrl_c_while_a_command_is_imported_leaves_no_traceback() -> None:
    code = (
        "import os, signal, sys\n"
        "from shared_context_server.__main__ import main\n"
        "class Interrupter:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'shared_context_server.cli':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupter())\n"
        "sys.argv = ['scs', 'status']\n"
        "main()\n"
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code],
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ended.returncode, ended.stderr) == (130, "")
