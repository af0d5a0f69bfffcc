"""Ranking: what people mean comes first, in any language."""

from __future__ import annotations

import pytest

from shared_context_server.services.scoring import (
    MANY_TEXTS,
    MAX_UNITS,
    Query,
    rarity,
    score_in_steps,
    score_text,
    score_texts,
)
from shared_context_server.services.slices import finish

THRESHOLD = 60  # the tool's default


@pytest.mark.parametrize(
    "query, texts",
    [
        # Exact before typo, before another word
        ("server", ["the server is down", "the sevrer is down", "the silver is down"]),
        ("receive", ["we receive it", "we recieve it", "we retrieve it"]),
        # A word before a longer one that begins with it, before one that only contains it
        ("script", ["a script runs", "two scripts run", "the javascript runs"]),
        # Phrase, words in another order or apart, some of the words
        (
            "database migration failed",
            [
                "today the database migration failed again",
                "the migration of a large database has failed",
                "the database migration is done",
                "the migration is done",
            ],
        ),
        # As written, then otherwise, then with other accents
        ("user_id", ["where user_id = 7", "where userId = 7", "the id of a user", "a user"]),
        ("résumé", ["mon résumé est prêt", "my resume is ready", "my resumes are ready"]),
        ("mon résumé", ["mon résumé est", "mon resume est", "mon rezumé est"]),
        # Identifiers and their parts
        ("services/words.py", ["see src/services/words.py:42", "words in services", "words"]),
        ("ERR_2034", ["got ERR_2034 here", "got err-2034 here", "got ERR_2035 here"]),
        ("C++", ["a C++ program", "a C program"]),
        # Languages
        ("Straßenbahn", ["die Straßenbahn fährt", "die Strassenban fährt", "die Straße"]),
        ("mañana", ["hasta mañana", "hasta manana", "hasta manzana"]),
        ("किताब", ["यह किताब है", "यह किताबें हैं", "यह कलम है"]),
        ("今天天气", ["今天天气很好", "今天的天气很好", "昨天下雨了"]),
        ("ภาษาไทย", ["เรียนภาษาไทยง่าย", "เรียนภาษาจีน", "อากาศดี"]),
        ("データベース", ["データベースを移行する", "データを移行する", "会議は三時"]),
        ("сервер", ["наш сервер упал", "наши сервера упали", "наша сеть упала"]),
    ],
)
def test_the_better_match_scores_higher(query: str, texts: list[str]) -> None:
    scores = score_texts(Query(query), texts)
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores), scores
    assert scores[0] >= 99


@pytest.mark.parametrize(
    "query, text",
    [
        ("stagign", "failed on staging"),  # swapped letters
        ("deploymnt pipline", "the deployment pipeline failed"),
        ("konfigurtaion", "die Konfiguration fehlt"),
        ("actualizacion", "la actualización falló"),
        ("कितब", "यह किताब है"),
        ("今天天汽很好", "今天天气很好"),
        (
            "how do we restart the staging server after the failed night build",
            "restart the staging server after the night build with make up",
        ),
        ("user id", "set userId first"),
        ("userid", "set user_id first"),
        ("data base", "the database is slow"),
        ("a3f9c2e", "fixed in a3f9c2e8b1d4f05566778899aabbccddeeff0011"),
        ("auth", "authentication is broken"),
        ("?!", "really?!"),
        ("🚀", "we ship 🚀 today"),
    ],
)
def test_what_is_meant_is_found(query: str, text: str) -> None:
    other = "lunch is at noon, कोई और बात 昨天下雨了"
    found, missed = score_texts(Query(query), [text, other])
    assert found >= THRESHOLD > missed


@pytest.mark.parametrize(
    "query, text",
    [
        ("2024", "in 2025"),
        ("ERR_2034", "a server said 7"),
        ("cat", "the dog"),
        ("कतब मज", "कोई और"),
        ("hash 7fe2a9c", "hash 7fe2a9d is the 1st"),
    ],
)
def test_another_number_or_word_is_no_match(query: str, text: str) -> None:
    assert score_text(Query(query), text) < THRESHOLD


def test_an_emoji_is_found_with_another_skin_tone() -> None:
    exact, other = score_text(Query("👍🏽"), "done 👍🏽"), score_text(Query("👍"), "done 👍🏽")
    assert exact > other > 90
    assert score_text(Query("👍🏿"), "done 👍") > 90
    assert score_text(Query("👎"), "done 👍🏽") == 0


def test_other_accents_cost_a_little() -> None:
    same, other = score_texts(Query("résumé prêt"), ["un résumé vite prêt", "un resume vite pret"])
    assert 1 < same - other < 3


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    texts = ["the server needs a restart", "the tokamak needs a pause"]
    query = Query("server tokamak")
    equal = score_texts(query, texts)
    query.weigh({"server": rarity(900, 1000), "tokamak": rarity(1, 1000)})
    common, rare = score_texts(query, texts)
    assert abs(equal[0] - equal[1]) < 5
    assert rare > common + 20


def test_rare_words_weigh_more_in_scripts_without_spaces_too() -> None:
    counts = {"天气": 2, "服务": 900, "务器": 950}
    query = Query("服务器 天气")
    query.weigh_by_counts(lambda term: counts.get(term, 0), 1000)
    common, rare = score_texts(query, ["服务器坏了", "天气很好"])
    assert rare > common + 20


def test_rarity_falls_from_one_to_zero() -> None:
    values = [rarity(count, MANY_TEXTS) for count in (0, 1, 10, 100, MANY_TEXTS)]
    assert values == sorted(values, reverse=True)
    assert (values[0], values[-1]) == (1.0, 0.0)
    assert rarity(5, 0) == 1.0
    assert 0.5 < rarity(10, 10) < rarity(1, 10) < 1.0  # few texts say little


def test_a_score_does_not_depend_on_the_texts_beside_it() -> None:
    texts = ["the deployment failed", "deploymnt", "user_id", "今天天气很好", ""] * 3
    query = Query("deployment user 天气")
    assert score_texts(query, texts) == [score_text(query, text) for text in texts]


def test_a_query_of_many_parts_and_repetitions_stays_small() -> None:
    assert len(Query("a_b " * 200 + " ".join(f"x{n}y" for n in range(90))).units) <= MAX_UNITS
    assert len(Query("very " * 100).units) == 2
    for text in ("very " * 20, "aaa aaa aa aaa aa"):
        assert score_text(Query(text), text) == 100


def test_long_texts_are_scored_in_steps() -> None:
    texts = ["lorem ipsum dolor " * 5_000 + "needle"] * 20
    steps = sum(1 for _ in score_in_steps(Query("needle"), texts))
    assert steps > 40
    assert finish(score_in_steps(Query("needle"), texts[:1])) == [100]
