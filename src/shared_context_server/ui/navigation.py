"""The sections of the dashboard, as its navigation lists them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Section:
    """An entry of the navigation. `icon` names one of templates/icons.html."""

    path: str
    title: str
    icon: str
    is_for_admins: bool = False


NAVIGATION = (
    Section("", "Fleet", "fleet"),
    Section("/sessions", "Sessions", "sessions"),
    Section("/tasks", "Tasks", "tasks"),
    Section("/memory", "Memory", "memory"),
    Section("/leases", "Leases & waits", "leases"),
    Section("/search", "Search", "search"),
    Section("/audit", "Audit", "audit", is_for_admins=True),
    Section("/clock", "Clock", "clock"),
    Section("/server", "Server", "server", is_for_admins=True),
    Section("/keys", "Keys", "keys", is_for_admins=True),
)


def find_section(path: str) -> Section | None:
    """Return the section that this path below the dashboard belongs to; None for other pages."""
    path = path.rstrip("/")
    matching = (
        section
        for section in NAVIGATION
        if path == section.path or (section.path and path.startswith(section.path + "/"))
    )
    return max(matching, key=lambda section: len(section.path), default=None)
