"""API keys, for admins: their list, a new one, and the rotation and revocation of one."""

from __future__ import annotations

from datetime import timedelta

from starlette.responses import Response

from shared_context_server.errors import InvalidArgument
from shared_context_server.models import ApiKey, Permission
from shared_context_server.services import keys
from shared_context_server.steady_time import utc_now
from shared_context_server.ui import new_key_cookie
from shared_context_server.ui.page import Page, PageRequest
from shared_context_server.ui.problems import Problem
from shared_context_server.ui.queries import MAX_ID_CHARS, check_text, read_text

# What a form offers: the most that the key allows.
CEILINGS = {
    "read": ("Read only", [Permission.READ]),
    "read,write": ("Read and write", [Permission.READ, Permission.WRITE]),
    "admin": ("Admin: everything", [Permission.ADMIN]),
}
# How long a new key is valid, in days.
LIVES = {
    "": "Until it is revoked",
    "7": "7 days",
    "30": "30 days",
    "90": "90 days",
    "365": "1 year",
}
# How long the old key of a rotation stays valid, in hours.
OVERLAPS = {"0": "Not at all", "1": "1 hour", "24": "1 day", "168": "7 days", "720": "30 days"}
DEFAULT_OVERLAP = "24"
DEFAULT_CEILING = "read,write"

EMPTY_FORM = {
    "permissions": DEFAULT_CEILING,
    "agent_id": "",
    "agent_type": "",
    "expires_in_days": "",
}


async def show_keys(page: PageRequest) -> Response:
    """All created keys, and a form for a new one."""
    return await _render(page)


async def create_key(page: PageRequest) -> Response:
    """Create a key and lead to the page that shows it, this one time."""
    try:
        ceiling = CEILINGS.get(page.form.get("permissions", ""))
        if ceiling is None:
            raise InvalidArgument("permissions must be one of the list.", field="permissions")
        life = page.form.get("expires_in_days", "")
        if life not in LIVES:
            raise InvalidArgument("Valid for must be one of the list.", field="expires_in_days")
        record, key = await keys.create_key(
            page.services,
            page.caller,
            agent_id=_read_field(page, "agent_id"),
            agent_type=_read_field(page, "agent_type") or None,
            permissions=ceiling[1],
            expires_at=utc_now() + timedelta(days=int(life)) if life else None,
        )
    except InvalidArgument as exc:
        # Scripts put the form in the place of the one that was sent.
        status_code = 200 if page.is_fragment else 400
        return await _render(page, status_code=status_code, problem=Problem.of(exc))
    return _lead_to_key(page, record, key)


def _lead_to_key(page: PageRequest, record: ApiKey, key: str) -> Response:
    response = page.redirect(page.address(new_key_cookie.CREATED_PATH, key_id=record.id))
    new_key_cookie.give(page, response, key)
    return response


async def show_created(page: PageRequest) -> Response:
    """The new key, if the browser comes from the form that made it; else that it is not shown again."""
    key_id = read_text(page, "key_id")
    record = (await keys.get_key(page.services, page.caller, key_id)).key
    listed = await keys.list_keys(page.services, page.caller)
    old = next((one.key for one in listed if one.key.replaced_by == key_id), None)
    response = page.render(
        "key_created.html",
        record=record,
        key=new_key_cookie.take(page),
        old=old,
        old_until=old.expires_at if old and old.expires_at and old.expires_at > utc_now() else None,
    )
    if page.request.method == "GET":
        new_key_cookie.remove(page, response)
    return response


async def confirm_revocation(page: PageRequest) -> Response:
    """What the revocation of a key ends, before it is done."""
    listed = await keys.get_key(page.services, page.caller, read_text(page, "key_id"))
    key, use = listed.key, listed.use
    return page.render(
        "confirm.html",
        title="Revoke a key",
        trail=[("Keys", page.address("/keys")), (key.id, None)],
        question=f"Revoke {key.id}, the key of {key.agent_id}?",
        touches=[
            ("1", f"key, {_name(key.permissions)}"),
            (
                use.tokens,
                "token that is valid now" if use.tokens == 1 else "tokens that are valid now",
            ),
            (use.agents, "agent that has them" if use.agents == 1 else "agents that have them"),
        ],
        note="Within a second, calls with it are refused and waiting calls end. It cannot be undone; a "
        "new key can be created. What the agent wrote stays.",
        action=page.address("/keys/revoke"),
        fields=[("key_id", key.id)],
        verb="Revoke it",
        back=page.address("/keys"),
    )


async def confirm_rotation(page: PageRequest) -> Response:
    """What the rotation of a key does, before it is done."""
    listed = await keys.get_key(page.services, page.caller, read_text(page, "key_id"))
    key, tokens = listed.key, listed.use.tokens
    what = "token of the old key, which ends with it"
    if tokens != 1:
        what = "tokens of the old key, which end with it"
    life = "never expires, like the old one"
    if key.expires_at is not None:
        days = max(1, round((key.expires_at - key.created_at) / timedelta(days=1)))
        life = f"lives for {days} {'day' if days == 1 else 'days'}, like the old one"
    return page.render(
        "confirm.html",
        title="Rotate a key",
        trail=[("Keys", page.address("/keys")), (key.id, None)],
        question=f"Replace {key.id}, the key of {key.agent_id}?",
        touches=[
            ("1", f"new key for {key.agent_id}, {_name(key.permissions)}; it {life}"),
            *([(tokens, what)] if tokens else []),
        ],
        choices=[("overlap_hours", "The old key stays valid for", OVERLAPS, DEFAULT_OVERLAP)],
        note="Put the new key, which is shown on the next page, in place of the old one meanwhile.",
        action=page.address("/keys/rotate"),
        fields=[("key_id", key.id)],
        verb="Rotate it",
        is_harmless=True,
        back=page.address("/keys"),
    )


async def rotate_key(page: PageRequest) -> Response:
    """Create the successor of a key and lead to the page that shows it, this one time."""
    hours = page.form.get("overlap_hours", "")
    if hours not in OVERLAPS:
        raise InvalidArgument("Stays valid for must be one of the list.", field="overlap_hours")
    old_id = page.form.get("key_id", "")
    overlap = timedelta(hours=int(hours))
    record, key = await keys.rotate_key(page.services, page.caller, old_id, overlap=overlap)
    return _lead_to_key(page, record, key)


async def revoke_key(page: PageRequest) -> Response:
    """Revoke the key."""
    await keys.revoke_key(page.services, page.caller, page.form.get("key_id", ""))
    return page.redirect(page.address("/keys"))


async def _render(
    page: PageRequest, *, status_code: int = 200, problem: Problem | None = None
) -> Response:
    return page.render(
        "keys.html",
        status_code=status_code,
        keys=await keys.list_keys(page.services, page.caller),
        problem=problem,
        form=EMPTY_FORM | dict(page.form),
        lives=list(LIVES.items()),
        ceilings=[(value, label) for value, (label, _) in CEILINGS.items()],
    )


def _read_field(page: PageRequest, name: str) -> str:
    return check_text(page.form.get(name, "").strip(), name, MAX_ID_CHARS)


def _name(permissions: frozenset[Permission]) -> str:
    return ", ".join(one.value for one in Permission if one in permissions)


PAGES = (
    Page("/keys", show_keys, create_key, permission=Permission.ADMIN),
    Page(new_key_cookie.CREATED_PATH, show_created, permission=Permission.ADMIN),
    Page("/keys/rotate", confirm_rotation, rotate_key, permission=Permission.ADMIN),
    Page("/keys/revoke", confirm_revocation, revoke_key, permission=Permission.ADMIN),
)
