"""Make vectors from texts: what an embedder is, and how the setting SEMANTIC_MODEL names one."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shared_context_server.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

EXTRA = "semantic"
FUNCTION_PREFIX = "python:"
MODEL_PACKAGES = ("numpy", "onnxruntime", "tokenizers")
FUNCTION_PACKAGES = ("numpy",)  # the function brings what it needs


class EmbedderFailed(Exception):
    """The embedder raised an error, or made something else than vectors."""


class Embedder(Protocol):
    """Makes vectors whose cosine tells how near the meanings of two texts are. `name`: changes with
    whatever changes the vectors. It is used by two threads at once."""

    @property
    def name(self) -> str: ...
    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> ArrayLike:
        """Return one vector of `dimensions` numbers for each text; any length, no NaN."""
        ...


def is_installed() -> bool:
    """Whether the packages of the extra are there."""
    return not _find_missing(MODEL_PACKAGES)


def check_model(model: str) -> None:
    """Check what costs no time to check. Raises ConfigurationError."""
    packages = FUNCTION_PACKAGES if model.startswith(FUNCTION_PREFIX) else MODEL_PACKAGES
    if missing := _find_missing(packages):
        raise ConfigurationError(
            f"SEMANTIC_MODEL needs the extra {EXTRA}: {', '.join(missing)} is not installed. Install "
            f"it from where the server came from: pip install 'CHECKOUT[{EXTRA}]', or "
            f"'WHEEL[{EXTRA}]', with the path of either."
        )
    if not model.startswith(FUNCTION_PREFIX):
        find_model_files(Path(model))


def load_embedder(model: str) -> Embedder:
    """Load what the setting names: the folder of a model, or python:MODULE:FUNCTION, a function
    that returns an embedder. Takes up to a second. Raises ConfigurationError."""
    if model.startswith(FUNCTION_PREFIX):
        return _call_function(model)
    from shared_context_server.vector_index.onnx_embedder import (  # noqa: PLC0415 - an extra
        OnnxEmbedder,
    )

    paths = find_model_files(Path(model))
    try:
        return OnnxEmbedder(*paths)
    except Exception as exc:
        raise ConfigurationError(f"SEMANTIC_MODEL: {paths[0]} cannot be used: {exc}") from exc


def find_model_files(folder: Path) -> tuple[Path, Path]:
    """Return the paths of the model and of its tokenizer. Raises ConfigurationError."""
    tokenizer = folder / "tokenizer.json"
    models = [folder / "model.onnx", folder / "onnx" / "model.onnx"]
    found = [path for path in models if path.is_file()]
    if not found or not tokenizer.is_file():
        raise ConfigurationError(
            f"SEMANTIC_MODEL: {folder} is not the folder of a model; it needs tokenizer.json and "
            "model.onnx, or onnx/model.onnx."
        )
    return found[0], tokenizer


def _find_missing(packages: Sequence[str]) -> list[str]:
    return [name for name in packages if find_spec(name) is None]


def _call_function(model: str) -> Embedder:
    module, _, function = model.removeprefix(FUNCTION_PREFIX).partition(":")
    try:
        embedder: Embedder = getattr(importlib.import_module(module), function)()
    except Exception as exc:
        raise ConfigurationError(
            f"SEMANTIC_MODEL: {model!r} names no function that returns an embedder, as "
            f"python:MODULE:FUNCTION: {exc}"
        ) from exc
    return embedder
