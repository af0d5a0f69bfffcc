"""What people do on the dashboard, in Chromium against a real server. Run by make test-browser."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="run by make test-browser")

from playwright.sync_api import expect

from tests.browser.conftest import KEYS, PATIENCE_MS, Agent, Window, open_window
from tests.cli.conftest import COMMAND, ServerProcess, make_env
from tests.settings import API_KEY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

expect.set_options(timeout=PATIENCE_MS)


def messages_of(window: Window) -> Locator:
    return window.page.locator("#log > .message")


def test_the_printed_link_signs_in_once(
    server: ServerProcess, chromium: Browser, window: Window
) -> None:
    directory = server.data_dir.parent
    printed = subprocess.run(
        [*COMMAND, "ui", "--no-open"],
        env=make_env(directory) | KEYS,
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
    )
    link = printed.stdout.strip()
    assert link.startswith(f"{server.url}/ui/login?code=")

    window.page.goto(link)
    expect(window.page.get_by_role("navigation", name="Main")).to_contain_text("overseer")
    expect(window.page.get_by_role("link", name="Audit")).to_be_visible()
    assert "code=" not in window.page.url
    with open_window(chromium, server.url) as other:
        other.page.goto(link)
        button = other.page.get_by_role("button", name="Sign in")
        if other.page.get_by_text("signs you in to the dashboard once").is_visible():
            button.click()
        expect(other.page.get_by_role("alert")).to_contain_text("not valid")


def test_a_key_signs_in_and_signing_out_ends_it(window: Window) -> None:
    window.go("/ui/sessions")
    expect(window.page).to_have_title(re.compile("Sign in"))

    window.page.get_by_label("Key").fill(API_KEY)
    window.page.get_by_label("Agent id").fill("ann")
    window.page.keyboard.press("Enter")
    expect(window.page.get_by_role("heading", name="Sessions", exact=True)).to_be_visible()
    expect(window.page.get_by_role("link", name="Audit")).to_have_count(0)
    cookies = window.context.cookies()
    assert [(one["httpOnly"], one["sameSite"], one["path"]) for one in cookies] == [
        (True, "Lax", "/ui")
    ]
    assert window.page.evaluate("document.cookie") == ""

    window.page.get_by_role("button", name="Sign out").click()
    expect(window.page).to_have_title(re.compile("Sign in"))
    window.go("/ui/sessions")
    expect(window.page).to_have_title(re.compile("Sign in"))


def test_a_message_posted_over_mcp_arrives_live_and_nothing_moves(
    overseer: Window, builder: Agent
) -> None:
    session_id = builder.create_session("A live log")
    for number in range(30):
        builder.say(session_id, f"message {number}\nsecond line")
    overseer.go("/ui/sessions")
    expect(overseer.page.locator("[data-live]")).to_have_attribute("data-state", "live")
    row = overseer.page.get_by_role("row", name=re.compile("A live log"))
    expect(row).to_contain_text("30")
    builder.say(session_id, "one more")
    expect(row).to_contain_text("31")

    row.get_by_role("link", name="A live log").click()
    expect(overseer.page.locator("[data-live]")).to_have_attribute("data-state", "live")
    assert overseer.page.url.endswith(session_id)
    builder.say(session_id, "Hello from MCP", metadata={"type": "decision"})
    newest = messages_of(overseer).last
    expect(newest).to_contain_text("Hello from MCP")
    expect(newest).to_be_in_viewport()
    expect(newest.locator("time")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    expect(newest.locator("time")).to_have_attribute("title", re.compile("UTC$"))
    newest.get_by_text("Metadata").click()
    expect(newest.locator(".metadata pre")).to_contain_text('"type": "decision"')

    third = messages_of(overseer).nth(2)
    third.scroll_into_view_if_needed()
    before = third.bounding_box()
    builder.say(session_id, "while the reader is further up")
    more = overseer.page.get_by_role("button", name="1 new")
    expect(more).to_be_visible()
    assert third.bounding_box() == before
    more.click()
    expect(messages_of(overseer).last).to_be_in_viewport()
    expect(more).to_be_hidden()


def test_a_paused_log_counts_what_is_new_and_goes_on_in_order(
    overseer: Window, builder: Agent
) -> None:
    session_id = builder.create_session()
    builder.say(session_id, "first")
    overseer.go(f"/ui/sessions/{session_id}")
    expect(overseer.page.locator("[data-live]")).to_have_attribute("data-state", "live")

    overseer.page.get_by_role("button", name="Pause").click()
    for number in range(12):
        builder.say(session_id, f"while paused {number}")
    expect(overseer.page.get_by_role("button", name="12 new")).to_be_visible()
    expect(messages_of(overseer)).to_have_count(1)

    overseer.page.get_by_role("button", name="12 new").click()
    expect(messages_of(overseer)).to_have_count(13)
    shown = [int(str(one.get_attribute("data-seq"))) for one in messages_of(overseer).all()]
    assert shown == list(range(1, 14))


def test_a_hidden_tab_has_no_stream_and_catches_up_when_it_is_seen(
    overseer: Window, builder: Agent
) -> None:
    session_id = builder.create_session()
    builder.say(session_id, "first")
    overseer.go(f"/ui/sessions/{session_id}")
    expect(overseer.page.locator("[data-live]")).to_have_attribute("data-state", "live")
    ended: list[str] = []
    overseer.page.on("requestfailed", lambda request: ended.append(request.url))
    overseer.page.on("requestfinished", lambda request: ended.append(request.url))
    show = """(isHidden) => {
        Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""

    overseer.page.evaluate(show, True)
    builder.say(session_id, "unseen 1")
    builder.say(session_id, "unseen 2")
    overseer.page.wait_for_timeout(200)  # for the hang-up to be told
    assert any("/ui/events/" in url for url in ended)
    expect(messages_of(overseer)).to_have_count(1)
    overseer.page.evaluate(show, False)

    expect(messages_of(overseer)).to_have_count(3)


def test_a_page_says_that_its_reader_was_signed_out_elsewhere(
    overseer: Window, builder: Agent
) -> None:
    session_id = builder.create_session()
    overseer.go(f"/ui/sessions/{session_id}")
    expect(overseer.page.locator("[data-live]")).to_have_attribute("data-state", "live")
    other = overseer.open_page()
    other.goto(f"{overseer.url}/ui/sessions")

    other.get_by_role("button", name="Sign out").click()
    expect(overseer.page.locator("[data-live]")).to_contain_text("Signed out")
    expect(overseer.page.locator("#toasts")).to_contain_text("You are signed out")


def test_filters_are_in_the_address_and_come_back_with_it(
    overseer: Window, builder: Agent, server: ServerProcess
) -> None:
    session_id = builder.create_session()
    reviewer = Agent(server.url, "reviewer")
    builder.say(session_id, "The parser drops a newline")
    reviewer.say(session_id, "Which parser?", metadata={"question": True})
    builder.say(session_id, "Nothing about it")
    overseer.go(f"/ui/sessions/{session_id}")

    overseer.page.get_by_label("Text").fill("parser")
    overseer.page.get_by_label("Agent", exact=True).fill("reviewer")
    overseer.page.get_by_role("button", name="Filter").click()
    expect(messages_of(overseer)).to_have_count(1)
    assert overseer.page.url.endswith(f"/ui/sessions/{session_id}?text=parser&agent=reviewer")
    overseer.page.reload()
    expect(messages_of(overseer)).to_have_text([re.compile("Which parser")])
    expect(overseer.page.get_by_label("Text")).to_have_value("parser")

    expect(overseer.page.locator("[data-live]")).to_have_attribute("data-state", "live")
    builder.say(session_id, "parser, but by another agent")
    reviewer.say(session_id, "the Parser again")
    expect(messages_of(overseer)).to_have_count(2)


def test_older_messages_come_in_above_without_a_jump(overseer: Window, builder: Agent) -> None:
    session_id = builder.create_session()
    for number in range(70):
        builder.say(session_id, f"message {number}")
    overseer.go(f"/ui/sessions/{session_id}")
    expect(messages_of(overseer)).to_have_count(50)
    link = overseer.page.get_by_role("link", name="Older messages")
    link.scroll_into_view_if_needed()
    first = overseer.page.locator("#m21")
    before = first.bounding_box()

    link.click()
    expect(messages_of(overseer)).to_have_count(70)
    expect(overseer.page.get_by_role("link", name="Older messages")).to_have_count(0)
    after = first.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(before["y"] - after["y"]) < 60  # the height of the link, which is gone


def test_the_overseer_posts_and_the_agent_sees_which_kind(overseer: Window, builder: Agent) -> None:
    session_id = builder.create_session()
    builder.say(session_id, "Deleting the old tables now")
    overseer.go(f"/ui/sessions/{session_id}")
    expect(overseer.page.locator("[data-live]")).to_have_attribute("data-state", "live")

    overseer.page.locator("#m1").hover()
    overseer.page.get_by_role("link", name="Reply to message 1").click()
    overseer.page.get_by_label("Message", exact=True).fill("Stop. Back them up first.")
    overseer.page.get_by_label("As", exact=True).select_option("stop")
    overseer.page.get_by_label("To", exact=True).fill("builder")
    overseer.page.keyboard.press("Tab")
    overseer.page.get_by_role("button", name="Post").click()
    expect(overseer.page.locator("#post")).to_contain_text("Posted as #2")
    expect(overseer.page.locator("#m2")).to_contain_text("stop")
    expect(overseer.page.get_by_label("Message", exact=True)).to_have_value("")

    told = builder.call("wait_for_messages", session_id=session_id, after_seq=1, mentions_me=True)
    (message,) = told["messages"]
    assert message["metadata"] == {"type": "stop", "overseer": "stop"}
    assert message["content"] == "@builder Stop. Back them up first."
    assert message["parent_message_id"] is not None


def test_anothers_private_message_is_not_shown(
    window: Window, builder: Agent, server: ServerProcess
) -> None:
    session_id = builder.create_session("With a secret")
    builder.say(session_id, "for everyone")
    window.sign_in(API_KEY, "ann")
    window.go(f"/ui/sessions/{session_id}")
    expect(window.page.locator("[data-live]")).to_have_attribute("data-state", "live")

    builder.say(session_id, "a secret between two", visibility="private", recipients=["bob"])
    builder.say(session_id, "for everyone again")
    expect(messages_of(window)).to_have_count(2)
    window.page.reload()
    expect(messages_of(window)).to_have_count(2)
    assert "a secret between two" not in window.page.content()
    assert "2 messages" in window.page.inner_text("main")
    window.go("/ui/search?q=secret+between+two")
    assert "a secret between two" not in window.page.content()


def test_deleting_shows_what_goes_before_it_goes(overseer: Window, builder: Agent) -> None:
    session_id = builder.create_session("To be deleted")
    for number in range(3):
        builder.say(session_id, f"message {number}")
    builder.call("set_memory", key="k", value=1, session_id=session_id, scope="shared")
    overseer.go(f"/ui/sessions/{session_id}")

    overseer.page.get_by_text("More", exact=True).click()
    overseer.page.get_by_role("link", name="Delete…").click()
    expect(overseer.page.locator(".touches")).to_contain_text("3 messages")
    expect(overseer.page.locator(".touches")).to_contain_text("1 memory entry")
    overseer.page.get_by_role("link", name="Cancel").click()
    expect(messages_of(overseer)).to_have_count(3)
    overseer.go(f"/ui/sessions/{session_id}/delete")
    overseer.page.get_by_role("button", name="Delete the session").click()
    expect(overseer.page.get_by_role("heading", name="Sessions", exact=True)).to_be_visible()
    expect(overseer.page.get_by_text("To be deleted")).to_have_count(0)


def test_everything_can_be_reached_with_the_keyboard(window: Window, builder: Agent) -> None:
    session_id = builder.create_session("By keyboard")
    builder.say(session_id, "hello")
    window.go("/ui/login")
    # Chromium gives the first field the focus with its next frame, which may come after the page.
    expect(window.page.get_by_label("Key")).to_be_focused()
    window.page.keyboard.type("the-admins-key-0123456789")
    window.page.keyboard.press("Tab")
    window.page.keyboard.type("ann")
    window.page.keyboard.press("Enter")
    window.page.get_by_role("navigation", name="Main").wait_for()
    window.go("/ui/sessions")

    window.page.keyboard.press("Tab")
    expect(window.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    window.page.keyboard.press("Enter")
    for _ in range(4):  # the tabs, then the first session
        window.page.keyboard.press("Tab")
    expect(window.page.get_by_role("link", name="By keyboard")).to_be_focused()
    outline = window.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    window.page.keyboard.press("Enter")
    expect(window.page.get_by_role("heading", name="By keyboard")).to_be_visible()
    window.page.keyboard.press("/")
    expect(window.page.get_by_label("Text")).to_be_focused()
    window.page.get_by_label("Message", exact=True).focus()
    window.page.keyboard.type("typed")
    window.page.keyboard.press("Control+Enter")
    expect(window.page.locator("#m2")).to_contain_text("typed")


def test_hostile_text_stays_text(overseer: Window, builder: Agent) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    session_id = builder.create_session(hostile)
    overseer.page.on("dialog", lambda dialog: overseer.errors.append(dialog.message))
    builder.say(session_id, hostile, metadata={hostile: hostile})
    overseer.go(f"/ui/sessions/{session_id}")
    expect(overseer.page.locator("[data-live]")).to_have_attribute("data-state", "live")

    builder.say(session_id, hostile)
    expect(messages_of(overseer)).to_have_count(2)
    expect(messages_of(overseer).last).to_contain_text(hostile)
    overseer.go("/ui/search?q=onerror")
    expect(overseer.page.locator(".result").first).to_contain_text("<img src=x")


def test_what_is_written_stays_over_a_reload_and_a_new_sign_in(
    overseer: Window, builder: Agent
) -> None:
    session_id = builder.create_session("With a draft")
    overseer.go(f"/ui/sessions/{session_id}")
    field = overseer.page.get_by_label("Message", exact=True)
    field.fill("half a thought")
    overseer.page.reload()
    expect(field).to_have_value("half a thought")

    overseer.context.clear_cookies()
    overseer.page.get_by_role("button", name="Post", exact=True).click()
    expect(overseer.page).to_have_title(re.compile("Sign in"))
    overseer.page.get_by_label("Key").fill(KEYS["ADMIN_API_KEY"])
    overseer.page.get_by_role("button", name="Sign in").click()
    expect(overseer.page).to_have_title(re.compile("With a draft"))
    expect(field).to_have_value("half a thought")
    overseer.page.get_by_role("button", name="Post", exact=True).click()
    expect(messages_of(overseer).last).to_contain_text("half a thought")
    expect(field).to_have_value("")
    overseer.page.reload()
    expect(field).to_have_value("")


@pytest.mark.parametrize(
    "tool, said", [("close_session", "was closed"), ("delete_session", "was deleted")]
)
def test_a_session_that_ends_under_an_open_page_says_so_and_takes_no_more(
    overseer: Window, builder: Agent, tool: str, said: str
) -> None:
    session_id = builder.create_session("To end")
    builder.say(session_id, "first")
    overseer.go(f"/ui/sessions/{session_id}")
    expect(overseer.page.locator("[data-live]")).to_have_attribute("data-state", "live")
    overseer.page.get_by_label("Message", exact=True).fill("not posted yet")

    builder.call(tool, session_id=session_id)
    alert = overseer.page.get_by_role("alert")
    expect(alert).to_contain_text(said)
    expect(alert).to_be_in_viewport()
    expect(overseer.page.get_by_role("button", name="Post", exact=True)).to_be_disabled()
    expect(overseer.page.locator(".session-facts")).not_to_contain_text("active")
    expect(overseer.page.get_by_label("Message", exact=True)).to_have_value("not posted yet")
    alert.get_by_role("link", name="choose another session").or_(
        alert.get_by_role("link", name="Choose another session")
    ).click()
    expect(overseer.page.get_by_role("heading", name="Sessions", exact=True)).to_be_visible()


def test_posting_while_scrolled_up_leads_to_the_message_and_counts_nothing(
    overseer: Window, builder: Agent
) -> None:
    session_id = builder.create_session()
    for number in range(30):
        builder.say(session_id, f"message {number}\nsecond line")
    overseer.go(f"/ui/sessions/{session_id}")
    expect(overseer.page.locator("[data-live]")).to_have_attribute("data-state", "live")
    messages_of(overseer).nth(2).scroll_into_view_if_needed()
    builder.say(session_id, "from another")
    more = overseer.page.get_by_role("button", name="1 new")
    expect(more).to_be_visible()
    button, foot = more.bounding_box(), overseer.page.locator("#post").bounding_box()
    assert button is not None
    assert foot is not None
    assert button["y"] + button["height"] <= foot["y"]

    overseer.page.get_by_label("Message", exact=True).fill("my own")
    overseer.page.get_by_role("button", name="Post", exact=True).click()
    expect(overseer.page.locator("#post")).to_contain_text("Posted as #32")
    expect(overseer.page.locator("#m32")).to_be_in_viewport()
    expect(overseer.page.locator("[data-new]")).to_be_hidden()


def test_a_reload_and_going_back_make_no_second_key(overseer: Window) -> None:
    overseer.go("/ui/keys")
    overseer.page.get_by_label("Agent id, or a pattern").fill("reloader")
    overseer.page.get_by_role("button", name="Create").click()
    secret = overseer.page.locator(".secret code")
    key = secret.inner_text()
    assert key.startswith("scs_")
    assert key not in overseer.page.url
    overseer.page.reload()
    expect(overseer.page.get_by_text("was shown once")).to_be_visible()
    overseer.page.go_back()
    expect(overseer.page.get_by_role("heading", name="Keys", exact=True)).to_be_visible()
    overseer.page.go_forward()
    expect(overseer.page.get_by_text("was shown once")).to_be_visible()
    overseer.go("/ui/keys")
    expect(overseer.page.get_by_role("row", name=re.compile("reloader"))).to_have_count(1)


def test_a_wrong_form_is_answered_in_its_place(overseer: Window) -> None:
    overseer.go("/ui/memory/edit")
    overseer.page.get_by_label("Key", exact=True).fill("wrong")
    overseer.page.get_by_label("Value").fill("{")
    overseer.page.get_by_role("button", name="Save").click()
    expect(overseer.page.get_by_role("alert")).to_contain_text("The value")
    overseer.page.get_by_label("Value").fill('{"a": 1}')
    overseer.page.get_by_role("button", name="Save").click()
    expect(overseer.page.get_by_role("heading", name="wrong")).to_be_visible()
    overseer.page.go_back()  # to the form, which was not sent again
    expect(overseer.page.get_by_role("button", name="Save")).to_be_visible()
    expect(overseer.page.get_by_label("Key", exact=True)).to_have_value("")
