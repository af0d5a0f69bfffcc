"""What is shown of a broken promise: the calls around it, as text and as a page."""

from __future__ import annotations

from pathlib import Path

from prove.checks import check
from prove.windows import find_window, write_text, write_timeline
from tests.prove.histories import SESSION, Story, message


def test_a_window_has_the_calls_that_show_the_error_and_those_beside_them(tmp_path: Path) -> None:
    story = Story()
    story.write(0, "carol", "long before", 1)
    shown = story.write(5, "alice", "<b>lost</b>", 2)
    beside = story.write(5.2, "bob", "beside", 3)
    story.load(5.2, "bob", None, session_id=SESSION)
    story.fault(5.1, 9)
    story.end(message(1, "long before"), message(2, "another"), message(3, "beside"))
    (broken,) = check(story.history)
    window = find_window(story.history, broken)
    assert [call.number for call in window.calls] == [shown.number, beside.number]
    text = write_text(window)
    assert text.startswith("lost: '<b>lost</b>' was acknowledged as 2 in session_1")
    assert "fault: a fault" in text
    assert "!" in next(line for line in text.splitlines() if "alice  " in line)
    page = tmp_path / "page.html"
    write_timeline([window], "seed 1", page)
    html = page.read_text()
    assert html.count('class="bar ok') == 2
    assert "&lt;b&gt;lost" in html
    assert "<b>lost" not in html
