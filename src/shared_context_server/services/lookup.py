"""Look up the candidates of a search: what to look for in the index, in which texts, and how often
each word occurs in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from shared_context_server.models import MemoryAddress
from shared_context_server.search_index.audience import caller_keys
from shared_context_server.search_index.documents import Kind as DocumentKind
from shared_context_server.search_index.queries import CandidateQuery, Scope
from shared_context_server.search_index.reader import Candidate, Snapshot
from shared_context_server.services.candidates import Looked
from shared_context_server.services.query_terms import QueryTerm, query_terms
from shared_context_server.services.scoring import Query, Unit, indexed_terms, rarity
from shared_context_server.services.search_request import SearchRequest, SortOrder, Within
from shared_context_server.services.search_state import Search
from shared_context_server.services.terms import Kind as TermKind
from shared_context_server.services.terms import letter_pairs, list_chunks, list_letters

MIN_CANDIDATES = 100
CANDIDATES_A_HIT = 4
# So many more among a million texts, where more are nearly equal; of runs the estimate says less.
FURTHER_CANDIDATES, FURTHER_OF_RUNS = 50, 100
CANDIDATES_OF_LATER_PAGES = 1_000
FREQUENT = 50  # texts; two typos in a word of so many are not looked for
COMMON = 500  # texts; not all words similar to one of so many are looked for
MAX_COUNTED_TERMS = 16  # whose frequency is looked up; further ones count as rare
# How much more the scorer may give a text than the index estimates: for neighbours, and for words
# similar to common ones, by the weight of these. The like of a common word could weigh more, but
# then so many texts have the word itself that its like is not among the best.
ESTIMATE_SLACK = 4.0
COMMON_SLACK = 20.0
# The scorer may give more than the index estimates, so candidates need a part of the threshold only.
CANDIDATE_SHARE = 0.7
# Lower in scripts without spaces: the scorer compares single letters there too, not only pairs.
RUN_SHARE = 0.35

_KINDS = {
    Within.MESSAGES: (DocumentKind.MESSAGE,),
    Within.MEMORY: (DocumentKind.MEMORY,),
    Within.ALL: (DocumentKind.MESSAGE, DocumentKind.MEMORY),
}


async def look_up(search: Search) -> Looked | None:
    """Ask the index. None if there is none, or if the query has no term to look up."""
    request = search.request
    terms = query_terms(request.query)
    if not terms:
        return None
    asked = find_scope(search)
    has_runs = any(term.kind is TermKind.RUN for term in terms)

    def look(snapshot: Snapshot) -> Looked:
        everything = asked
        if not snapshot.progress.is_complete:  # then it has no memory
            everything = replace(asked, kinds=(DocumentKind.MESSAGE,))
        # Only what the caller may see is counted: scores must not tell of other texts.
        texts = snapshot.count(everything)
        counted = search.query.counted_terms()[:MAX_COUNTED_TERMS]
        if search.ranking.basis is None:
            numbers = [snapshot.count_with(term, everything) for term in counted]
            search.ranking.basis = [texts, *numbers]
        # Of later pages: those of the first, so that the scores are the same.
        base, *numbers = search.ranking.basis
        counts = dict(zip(counted, numbers, strict=False))
        search.query.weigh_by_counts(lambda term: counts.get(term, 0), base)
        weighed = _weigh(terms, counts, base)
        common = frozenset(term for term, number in counts.items() if number >= COMMON)
        query = CandidateQuery(
            terms=weighed,
            scope=narrow(everything, request),
            limit=_count_candidates(request, base, has_runs=has_runs),
            enough=request.limit if len(terms) == 1 else 1,
            neighbours=_list_neighbours(search.query, {}),
            frequent=frozenset(term for term, number in counts.items() if number >= FREQUENT),
            common=common,
            with_metadata=request.search_metadata,
            min_share=(RUN_SHARE if has_runs else CANDIDATE_SHARE) * request.fuzzy_threshold / 100,
            newest_first=request.sort is SortOrder.NEWEST,
        )
        slack = ESTIMATE_SLACK + COMMON_SLACK * sum(
            term.weight for term in weighed if term.text in common
        )
        if has_runs or len(counted) < len(terms):
            slack = 100.0  # the estimate says too little
        return Looked(query, weighed, snapshot.find(query), texts, snapshot, slack)

    return await search.services.candidates.look_up(look)


def _count_candidates(request: SearchRequest, texts: int, *, has_runs: bool) -> int:
    """Return how many candidates are asked for."""
    if request.cursor is not None:
        return CANDIDATES_OF_LATER_PAGES
    further = FURTHER_OF_RUNS if has_runs else FURTHER_CANDIDATES
    least = MIN_CANDIDATES + round(further * min(1.0, texts / 1_000_000))
    return max(least, CANDIDATES_A_HIT * request.limit)


def find_scope(search: Search) -> Scope:
    """Return what of the index the caller may see and asks for, without the filters."""
    keys, session_id = caller_keys(search.caller), search.request.session_id
    if session_id is not None:
        keys = replace(keys, readers=None)  # the session was checked
    return Scope(keys, _KINDS[search.request.within], session_id)


def narrow(scope: Scope, request: SearchRequest) -> Scope:
    """Return what the filters of the search leave of the scope."""
    return replace(
        scope,
        sender=request.sender,
        visibility=request.visibility,
        start_time=request.start_time,
        end_time=request.end_time,
    )


def _weigh(terms: Sequence[QueryTerm], counts: dict[str, int], texts: int) -> list[QueryTerm]:
    """Weigh the terms by how rare they are, as the scorer does."""
    weights = [
        term.weight * (0.25 + 0.75 * rarity(counts.get(term.text, 0), texts)) for term in terms
    ]
    total = sum(weights) or 1.0
    return [
        replace(term, weight=weight / total) for term, weight in zip(terms, weights, strict=True)
    ]


async def look_again(
    search: Search, looked: Looked, rest: Sequence[Candidate]
) -> Sequence[Candidate]:
    """Return what to compare in place of the rest of the candidates, those that were not compared.

    The index tells neighbours only among words as the query has them. If a word is mistyped, and
    more texts are equally near than there are candidates, the one that has the words next to each
    other may not be among them. So the index is asked again, for the words that the best texts have
    in place of the query's.
    """
    query = looked.query
    has_all = len(looked.candidates) < query.limit
    if has_all or query.newest_first or search.request.cursor is not None:
        return rest
    # What the index has left out is estimated no better than the last candidate.
    if search.has_better(100 * looked.candidates[-1].estimate + ESTIMATE_SLACK):
        return rest
    written = _find_written(search)
    if not written:
        return rest
    again = replace(
        query,
        terms=[_as_written(term, written.get(term.text, ())) for term in looked.terms],
        neighbours=_list_neighbours(search.query, written),
        enough=0,
    )
    found = await search.services.candidates.look_up(lambda _: looked.snapshot.find(again))
    new = {_name(one): one for one in (*(found or ()), *rest)}
    return [one for name, one in new.items() if name not in search.known][: query.limit]


def _name(found: Candidate) -> int | MemoryAddress:
    return found.address or found.message_id


def _find_written(search: Search) -> dict[str, list[str]]:
    """Return the word that most of the best texts have in place of a word of the query."""
    counts: dict[str, Counter[str]] = {}
    units = search.query.units
    for match in search.best[: search.request.limit]:
        if match.message is None:
            continue
        hits = search.hits[match.message.id]
        nearest: dict[int, tuple[float, str]] = {}
        for chunk in list_chunks(match.message.content):
            for hit in hits.get(chunk, ()):
                if hit.first == hit.last and hit.token.kind is not TermKind.RUN:
                    one = (hit.similarity, hit.token.term)
                    nearest[hit.first] = max(nearest.get(hit.first, one), one)
        for number, (_, term) in nearest.items():
            if term != units[number].term:
                counts.setdefault(units[number].term, Counter())[term] += 1
    return {term: [found.most_common(1)[0][0]] for term, found in counts.items()}


def _as_written(term: QueryTerm, written: Sequence[str]) -> QueryTerm:
    alternatives = (*term.alternatives, *written)
    return replace(term, max_edits=0, is_prefix=False, alternatives=alternatives)


def _list_neighbours(
    query: Query, written: Mapping[str, Sequence[str]]
) -> list[list[tuple[str, ...]]]:
    """Return what stands next to each other in the query: for each two words the orders of terms in
    which a text may have them, as in the query or with what is written in place of them. The pairs
    of letters of a run come as neighbours too."""
    units = query.units
    found: list[list[tuple[str, ...]]] = []
    for number, before in query.before.items():
        one, other = units[before], units[number]
        ways = [
            (*first[-2:], *second[:1])
            for first in _list_ways(one, written)
            for second in _list_ways(other, written)
        ]
        if one.kind is other.kind is TermKind.RUN:  # they may be written as one
            joined = tuple(letter_pairs(list_letters(one.term)[-1] + other.term))
            ways.append((*_list_ways(one, {})[0][-2:-1], *joined[:2]))
        found.append([way for way in ways if len(way) > 1])
    for unit in units:
        if unit.kind is TermKind.RUN:
            found += [[pair] for pair in pairwise(indexed_terms(unit))]
    return [ways for ways in found if ways]


def _list_ways(unit: Unit, written: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the terms that a text has of a unit, one after the other: a run has several."""
    if unit.kind is TermKind.RUN:
        return [tuple(letter_pairs(unit.term))]
    return [(unit.term,), *((term,) for term in written.get(unit.term, ()))]
