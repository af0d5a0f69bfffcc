"""Compare the pinned versions with known vulnerabilities, by pip-audit; `make audit`.

Exits with 1 if a pinned version has a known vulnerability. Where the advisories cannot be asked, for
want of a network, it says that nothing was checked and exits with 0: an index that is away must not
stop a change.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What is installed to run the server, and what builds and tests it.
PINS = ("runtime.txt", "semantic.txt", "dev.txt", "build.txt")
PATIENCE_S = 300


def audit(names: tuple[str, ...] = PINS) -> int:
    """Audit the files of pins with these names; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes"]
        command += ["--progress-spinner", "off", "--format", "json", "--output", str(report)]
        for name in names:
            command += ["--requirement", str(HERE / name)]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
        except subprocess.TimeoutExpired:
            return _say_unchecked(f"no answer within {PATIENCE_S} seconds")
        if not report.exists():
            lines = ended.stderr.strip().splitlines() or ["pip-audit wrote no report"]
            return _say_unchecked(lines[-1])
        packages = json.loads(report.read_text())["dependencies"]
    found = [
        f"{package['name']} {package['version']}: {fault['id']}, fixed in "
        f"{', '.join(fault['fix_versions']) or 'no version'}"
        for package in packages
        for fault in package.get("vulns", ())
    ]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        reasons = [package["skip_reason"] for package in packages]
        return _say_unchecked(reasons[0] if reasons else "there are no packages")
    print(*found, sep="\n", end="\n" if found else "")
    if skipped:
        print(f"audit: not checked: {', '.join(skipped)}")
    print(f"audit: {len(packages) - len(skipped)} packages checked, {len(found)} vulnerabilities")
    return 1 if found else 0


def _say_unchecked(reason: str) -> int:
    print(f"audit: NOTHING WAS CHECKED, the advisories could not be asked: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(audit())
