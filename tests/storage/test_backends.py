"""What each backend has to have, read from the contract."""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib import import_module
from typing import Any, get_type_hints

import pytest

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage.backends import PACKAGES, Backend, find_backend
from shared_context_server.storage.contract import Store
from tests.storage.conftest import STORES

BACKENDS = sorted(set(PACKAGES.values()))
PORTS: dict[str, Any] = get_type_hints(Store)


def parameters_of(function: Any) -> list[str]:
    """Their names; the connection is what a store adds, and `self` is nobody's."""
    names = list(inspect.signature(function).parameters)
    return [name for name in names if name not in ("self", "connection")]


def methods_of(owner: type) -> dict[str, list[str]]:
    """The public methods that a class has itself."""
    return {
        name: parameters_of(value)
        for name, value in vars(owner).items()
        if callable(value) and not name.startswith("_")
    }


@pytest.mark.parametrize("subject", [field.name for field in fields(Store)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_subject_has_exactly_the_methods_of_its_port(backend: str, subject: str) -> None:
    port = PORTS[subject]
    assert port.__module__ == f"shared_context_server.storage.contract.{subject}"
    module = import_module(f"shared_context_server.storage.{backend}.{subject}")
    implemented = methods_of(getattr(module, port.__name__))
    assert implemented == methods_of(port)


@pytest.mark.parametrize("subject", [field.name for field in fields(Store)])
def test_each_method_of_a_port_says_what_it_promises(subject: str) -> None:
    port = PORTS[subject]
    assert [name for name in methods_of(port) if not inspect.getdoc(getattr(port, name))] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_backend_is_registered_and_tested(backend: str) -> None:
    module = import_module(f"shared_context_server.storage.{backend}")
    assert isinstance(module.BACKEND, Backend)
    assert any(PACKAGES[store] == backend for store in STORES)


def test_an_unknown_scheme_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="'mysql'"):
        find_backend(Settings(database_url="mysql://localhost/x"))
