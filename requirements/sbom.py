"""Write a bill of materials in CycloneDX's format into the wheel, from the pinned requirements.

A hook of hatchling, called when a wheel is built; the file is in .dist-info/sboms, as PEP 770 says.
It has no time and no random id, so that the same sources make the same wheel.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PINS = "requirements/runtime.txt"
NAME = "shared-context-server.cdx.json"
_PIN = re.compile(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)(?:\s*;\s*([^\\\n]+))?", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class BillOfMaterials(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the bill of materials, where the pinned requirements are part of what is built from."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        pins = Path(self.root) / PINS
        if not pins.is_file():
            return
        self._folder = tempfile.mkdtemp()
        path = Path(self._folder) / NAME
        bill = make_bill(pins.read_text(encoding="utf-8"), self.metadata.version)
        path.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
        build_data["sbom_files"].append(str(path))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(getattr(self, "_folder", ""), ignore_errors=True)


def make_bill(pins: str, version: str) -> dict[str, Any]:
    """Return the bill of materials of this version with these pins, in the form of uv and pip."""
    found = list(_PIN.finditer(pins))
    ends = [*(match.start() for match in found[1:]), len(pins)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "shared-context-server",
                "name": "shared-context-server",
                "version": version,
                "licenses": [{"license": {"id": "MIT"}}],
            }
        },
        "components": [
            _component(match, pins[match.start() : end])
            for match, end in zip(found, ends, strict=True)
        ],
    }


def _component(match: re.Match[str], text: str) -> dict[str, Any]:
    """A package; its hashes are those of all its files, of which an installation uses one."""
    name, version, marker = match.groups()
    purl = f"pkg:pypi/{name}@{version}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in _HASH.findall(text)],
    }
    if marker:
        component["properties"] = [{"name": "python:marker", "value": marker.strip()}]
    return component
