"""The analyser: which texts a query finds, in any language, and where their words stand."""

from __future__ import annotations

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from shared_context_server.services import terms
from shared_context_server.services.query_terms import QueryTerm, query_terms
from shared_context_server.services.terms import (
    MAX_TERM_CHARS,
    MAX_TERMS,
    analyse,
    analyse_text,
    index_terms,
    split_chunks,
)


def is_found(term: QueryTerm, terms: set[str]) -> bool:
    """Whether an index that has these terms finds this one, without typos."""
    return (
        term.text in terms
        or not terms.isdisjoint(term.alternatives)
        or (term.is_prefix and any(known.startswith(term.text) for known in terms))
    )


def finds(query: str, text: str) -> bool:
    terms = set(index_terms(text))
    asked = query_terms(query)
    return bool(asked) and all(is_found(term, terms) for term in asked)


SPELLINGS = ["user_id", "userId", "user-id", "user id", "UserID", "USER_ID"]


@pytest.mark.parametrize("query", [*SPELLINGS, "userid"])
@pytest.mark.parametrize("text", SPELLINGS[:3])
def test_an_identifier_is_found_in_every_spelling(query: str, text: str) -> None:
    assert finds(query, f"set {text}, then go")


@pytest.mark.parametrize(
    "query, text",
    [
        ("words.py", "see src/services/words.py:42"),
        ("services/words", "see src/services/words.py:42"),
        ("example.com", "https://docs.example.com/a/b?q=1#top"),
        ("2034", "failed with ERR_2034"),
        ("err-2034", "failed with ERR_2034"),
        ("e1234", "error E1234."),
        ("worker 7", "worker-7 is done"),
        ("worker7", "worker-7 is done"),
        ("http server", "class HTTPServerError:"),
        ("a3f9c2e", "fixed in a3f9c2e8b1d4f05566778899aabbccddeeff0011"),
        ("550e8400-e29b-41d4-a716-446655440000", "id 550E8400-E29B-41D4-A716-446655440000"),
        ("c++", "written in C++, mostly"),
        ("🚀", "we ship 🚀 today"),
        ("2026-11-26", "on 2026-11-26T10:00:00Z"),
        ("dont", "please don't"),
        ("don’t", "please don't"),
        ("homme", "l'homme est là"),
        # Accents, compatibility forms, and case
        ("resume", "my résumé"),
        ("résumé", "my resume"),
        ("orsted", "Ørsted"),
        ("strasse", "Hauptstraße"[5:]),
        ("STRASSE", "straße"),
        ("istanbul", "İstanbul"),
        ("ISTANBUL", "\u0131stanbul"),
        ("file", "\ufb01le"),
        ("データ", "ﾃﾞｰﾀを消す"),
        ("abc", "ＡＢＣ"),  # noqa: RUF001 - full-width letters
        ("αθηνα", "Αθήνα"),
        ("елка", "ёлка"),
        ("مدرسة", "مَدْرَسَة"),
        ("שלום", "שָׁלוֹם"),
        # Scripts with marks that are part of the word
        ("किताब", "यह किताब है"),
        ("தமிழ்", "தமிழ் நாடு"),
        ("می\u200cخواهم", "میخواهم"),  # noqa: RUF001 - with and without the joiner
        # Scripts without spaces
        ("今天 天气", "今天天气很好"),
        ("水", "我要喝水"),
        ("水", "水很冷"),
        ("データ", "このデータベースは"),
        ("ไทย ง่าย", "ภาษาไทยง่ายมาก"),
        ("iphone", "我的iPhone手机"),
        ("手机", "我的iPhone手机"),
        ("서버", "서버를 다시 시작"),
    ],
)
def test_a_query_finds_the_text(query: str, text: str) -> None:
    assert finds(query, text)


@pytest.mark.parametrize(
    "query, text",
    [
        ("कतब मज", "किताब मेज"),  # the vowel signs are missing
        ("ไท", "ทไ"),
        ("昨天", "今天天气很好"),
        ("か", "がっこう"),
        ("2024", "20245"),
        ("user2", "user3"),
        ("cat", "concatenate"),
    ],
)
def test_another_word_is_not_found(query: str, text: str) -> None:
    assert not finds(query, text)


SENTENCES = [
    "The quick (brown) fox can't jump 32.3 feet, right?",
    "Die Übergröße kostet 1.000,50 Euro – Straßenbahn inbegriffen.",
    "¿Dónde está el niño? Mañana, quizás.",
    "L’été dernier, j'ai mangé une crêpe à l’œuf.",
    "यह हिन्दी में लिखा हुआ एक वाक्य है।",
    "இது தமிழ் வாக்கியம்.",
    "Это предложение на русском языке: ёж и йод.",
    "هذه جملة باللغة العربية",
    "זהו משפט בעברית",
    "이것은 한국어 문장입니다.",
    "Đây là một câu tiếng Việt.",
    "Ünlü İstanbul şehri çok güzel.",
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_every_word_by_the_rules_of_unicode_is_found(sentence: str) -> None:
    """Annex 29 as the package regex implements it: the boundaries of its WORD flag."""
    words = [word for word in regex.findall(r"(?w)\b\w.*?\b", sentence) if word.strip()]
    assert len(words) > 2
    for word in words:
        assert finds(word, sentence), word


@pytest.mark.parametrize(
    "text, places",
    [
        ("Straße und Maß", {"strasse": "Straße", "und": "und", "mass": "Maß"}),
        ("İİ İstanbul", {"istanbul": "İstanbul"}),
        ("e\ufb03cient o\ufb03ce", {"efficient": "e\ufb03cient", "office": "o\ufb03ce"}),
        ("ｶﾞｶﾞ user_id", {"user": "user", "id": "id", "userid": "user_id"}),
        ("cafe\u0301 nai\u0308ve!", {"cafe": "cafe\u0301", "naive": "nai\u0308ve"}),
        ('  "Hello," she said', {"hello": "Hello", "said": "said"}),
        ("getUserName()", {"name": "Name", "getusername": "getUserName"}),
    ],
)
def test_the_place_of_a_word_is_right_where_folding_changes_its_length(
    text: str, places: dict[str, str]
) -> None:
    found = {
        token.term: text[start + token.start : start + token.end]
        for chunk, start in split_chunks(text)
        for token in analyse(chunk).tokens
    }
    assert {term: found.get(term) for term in places} == places


@pytest.mark.parametrize(
    "text",
    [
        "今天天气\uff0c很好。",
        "「ガラス」を見る",
        "らーめん\uff01ラーメン\uff1b",
        "。、",
        "天",
        "\uff0c天",
    ],
)
def test_plain_chinese_and_japanese_is_analysed_as_among_other_signs(text: str) -> None:
    among_others = analyse(text + "…")
    assert analyse(text) == among_others
    assert analyse("…" + text).parts == among_others.parts


def test_terms_are_bounded_in_number_and_length() -> None:
    assert all(len(term) <= MAX_TERM_CHARS for term in index_terms("x" * 90_000 + " a/" * 20))
    assert len(index_terms(" ".join(f"w{number}q" for number in range(30_000)))) == MAX_TERMS
    assert finds("x" * 50, "x" * 90_000)


@given(st.text("aZbé019.,'(-_:#/+", min_size=1, max_size=9))
@example("Word123,").via("letters and digits")
@example("(404)").via("digits alone")
@example("ID5").via("capitals")
@example("0x1f").via("a hash")
def test_the_quick_ways_of_analysing_agree_with_the_general_one(chunk: str) -> None:
    assert terms.analyse(chunk) == terms._analyse(chunk)


def test_the_words_of_a_text_follow_each_other_without_the_names_that_they_form() -> None:
    order = analyse_text("Use C++ in user_id, 今天天气 or v1.2").order
    assert list(order) == [
        *("use", "c", "in", "user", "id"),
        *("今天", "天天", "天气", "气"),
        *("or", "v", "1", "2"),
    ]
