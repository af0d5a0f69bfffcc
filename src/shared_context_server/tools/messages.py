"""Tools for messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from shared_context_server.errors import InvalidArgument
from shared_context_server.models import (
    Ack,
    AgentId,
    MemoryScope,
    Message,
    Permission,
    Visibility,
)
from shared_context_server.services import digest, messages, search, waiting
from shared_context_server.services.context import Services
from shared_context_server.services.search_request import (
    SearchMode,
    SearchRequest,
    SortOrder,
    Within,
)
from shared_context_server.storage.contract import MessagePage, MessageQuery
from shared_context_server.tools.arguments import (
    AgentIds,
    Arguments,
    Content,
    Cursor,
    FencingToken,
    FirstSeq,
    IdempotencyKey,
    Instance,
    Integer,
    JsonMembers,
    LeaseName,
    MessageId,
    Metadata,
    Number,
    Result,
    Seq,
    SeqBySession,
    SessionId,
    Time,
    TimeArgument,
    is_false,
)
from shared_context_server.tools.leases import fence_of
from shared_context_server.tools.registry import ADDS, READS, SETS, Call, Tool
from shared_context_server.tools.written import Written, write_result


@dataclass(slots=True)
class MessageItem:
    """A message as every surface shows it: the fields of Message, in order, but ack. It is not a model,
    because models take several times as long to make, and an answer may have a thousand messages.
    """

    id: int
    session_id: str
    seq: int
    sender: str
    sender_type: str
    content: str
    visibility: Visibility
    recipients: list[str]
    metadata: JsonMembers
    parent_message_id: int | None
    timestamp: Time
    sender_instance: Instance = ""
    requires_ack: Annotated[bool, Field(exclude_if=is_false)] = False

    @classmethod
    def of(cls, message: Message) -> MessageItem:
        return cls(*message[:-1], message.ack is Ack.REQUIRED)


class AddMessage(Arguments):
    session_id: SessionId
    content: Content
    visibility: Annotated[
        Visibility,
        Field(description="private: you and recipients. agent_only: your agent_type."),
    ] = Visibility.PUBLIC
    recipients: AgentIds = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)
    parent_message_id: MessageId | None = None
    idempotency_key: Annotated[
        IdempotencyKey | None, Field(description="Repeat it when you retry.")
    ] = None
    requires_ack: Annotated[bool, Field(description="Recipients shall acknowledge_message.")] = (
        False
    )
    lease: Annotated[LeaseName | None, Field(description="Refuse unless you hold it.")] = None
    fencing_token: FencingToken | None = None


class MessageAdded(Result):
    message_id: int
    seq: int
    timestamp: Time
    duplicate: bool
    unknown_recipients: list[str] = Field(
        default=[], exclude_if=is_false, description="Never seen: misspelled?"
    )


class GetMessages(Arguments):
    session_id: SessionId
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 50
    offset: Annotated[Integer, Field(ge=0, le=2**31, description="Newest to skip.")] = 0
    after_seq: Annotated[Seq | None, Field(description="Oldest first after it.")] = None
    before_seq: Seq | None = None
    sender: AgentId | None = None
    visibility: Visibility | None = None
    start_time: TimeArgument | None = None
    end_time: TimeArgument | None = None
    parent_message_id: MessageId | None = None


class MessageList(Result):
    messages: list[MessageItem]
    count: int
    total_count: int
    has_more: bool
    next_after_seq: int
    first_seq: FirstSeq = 1


class WaitForMessages(Arguments):
    session_id: Annotated[
        SessionId | None, Field(description="Without session_id and session_ids: all you may read.")
    ] = None
    after_seq: Annotated[Seq | None, Field(description="Default: your stored cursor.")] = None
    session_ids: Annotated[
        list[SessionId] | None, Field(min_length=1, max_length=waiting.MAX_SESSIONS)
    ] = None
    cursors: Annotated[
        SeqBySession | None,
        Field(description="after_seq by session_id, when you wait for several."),
    ] = None
    timeout_seconds: Annotated[Number, Field(ge=0, le=3600)] = 25
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 50
    mentions_me: Annotated[
        bool, Field(description="Only messages to you, or with @your-agent-id.")
    ] = False
    include_own: Annotated[bool, Field(description="Your own messages count too.")] = False
    sender: AgentId | None = None
    visibility: Visibility | None = None


class WaitResult(Result):
    cursors: Annotated[dict[str, int] | None, Field(description="With several sessions.")]
    first_seqs: dict[str, int] = Field(
        default={},
        exclude_if=is_false,
        description="By session_id: the log begins here now, after your cursor.",
    )
    messages: list[MessageItem]
    next_after_seq: Annotated[int | None, Field(description="With session_id.")]
    timed_out: bool


class MarkRead(Arguments):
    session_id: SessionId
    seq: Seq


class MarkedRead(Result):
    seq: int
    unread: int


class GetDigest(Arguments):
    session_id: SessionId
    after_seq: Annotated[Seq | None, Field(description="Default: your stored cursor.")] = None
    max_tokens: Annotated[Integer, Field(ge=50, le=100_000)] = 2000


class DigestResult(Result):
    digest: str
    message_count: int
    estimated_tokens: int
    next_after_seq: int
    first_seq: FirstSeq = 1


class SearchContext(Arguments):
    session_id: Annotated[SessionId | None, Field(description="Default: all you may see.")] = None
    query: Annotated[str, Field(min_length=1, max_length=1000)]
    fuzzy_threshold: Annotated[Number, Field(ge=0, le=100, description="Lowest score.")] = 60
    limit: Annotated[Integer, Field(ge=1, le=100)] = 10
    scope: Annotated[
        Literal["all", "public", "private", "agent_only", "admin_only"],
        Field(description="The messages' visibility."),
    ] = "all"
    search_metadata: bool = True
    sender: AgentId | None = None
    start_time: TimeArgument | None = None
    end_time: TimeArgument | None = None
    sort: SortOrder = SortOrder.SCORE
    cursor: Cursor | None = None
    within: Within = Within.MESSAGES
    mode: Annotated[
        SearchMode, Field(description="semantic, hybrid: if the server has the extra.")
    ] = SearchMode.FUZZY


Highlights = Annotated[
    list[list[int]],
    Field(description="[start, end] of each match in match_preview, in code points."),
]


class SearchResult(BaseModel):
    message: MessageItem
    score: float
    match_preview: str
    highlights: Highlights
    shortened: Annotated[
        bool, Field(description="The message is cut; get_messages(after_seq=seq-1, limit=1).")
    ]


class MemoryResult(BaseModel):
    key: str
    scope: MemoryScope
    session_id: str | None
    version: int
    updated_at: Time
    updated_by: str
    score: float
    match_preview: str
    highlights: Highlights


class SearchResults(Result):
    results: list[SearchResult]
    memory: Annotated[list[MemoryResult], Field(description="With within memory or all.")]
    count: int
    next_cursor: str | None
    search_time_ms: float
    scanned: int
    exhaustive: bool


def message_list(page: MessagePage, query: MessageQuery) -> Written[MessageList]:
    """Return a page of messages as every surface shows it."""
    result = MessageList(
        messages=[],
        count=len(page.messages),
        total_count=page.total_count,
        has_more=page.has_more,
        next_after_seq=messages.next_after_seq(page, query),
        first_seq=page.first_seq,
    )
    return write_result(result, page.messages)


async def add_message(services: Services, call: Call, arguments: AddMessage) -> MessageAdded:
    """Tell the others in a session a finding, decision or question; @agent-id in content mentions
    one. Returns message_id and seq once it is stored durably."""
    added = await messages.add_message(
        services,
        call.caller,
        session_id=arguments.session_id,
        content=arguments.content,
        visibility=arguments.visibility,
        recipients=arguments.recipients,
        metadata=arguments.metadata,
        parent_message_id=arguments.parent_message_id,
        idempotency_key=arguments.idempotency_key,
        fence=fence_of(arguments.lease, arguments.fencing_token),
        requires_ack=arguments.requires_ack,
    )
    return MessageAdded(
        message_id=added.id,
        seq=added.seq,
        timestamp=added.timestamp,
        duplicate=added.duplicate,
        unknown_recipients=await messages.find_unknown_recipients(
            services, arguments.session_id, arguments.recipients
        ),
    )


async def get_messages(
    services: Services, call: Call, arguments: GetMessages
) -> Written[MessageList]:
    """Read messages you may see, in seq order: the newest, or those after after_seq. Continue with
    after_seq=next_after_seq while has_more."""
    query = MessageQuery(
        limit=arguments.limit,
        offset=arguments.offset,
        after_seq=arguments.after_seq,
        before_seq=arguments.before_seq,
        sender=arguments.sender,
        visibility=arguments.visibility,
        start_time=arguments.start_time,
        end_time=arguments.end_time,
        parent_message_id=arguments.parent_message_id,
    )
    page = await messages.get_messages(services, call.caller, arguments.session_id, query)
    return message_list(page, query)


async def mark_read(services: Services, call: Call, arguments: MarkRead) -> MarkedRead:
    """Store the seq up to which you have handled messages; your cursor never moves back. Returns how
    many are unread."""
    position = await messages.mark_read(services, call.caller, arguments.session_id, arguments.seq)
    return MarkedRead(seq=position.seq, unread=position.unread)


async def get_digest(services: Services, call: Call, arguments: GetDigest) -> DigestResult:
    """Catch up in few tokens on what happened since your cursor: who wrote, decisions, open
    questions, newest messages in full. Then mark_read next_after_seq. Messages count as such by
    metadata type "decision" or "question"."""
    found = await digest.get_digest(
        services,
        call.caller,
        arguments.session_id,
        after_seq=arguments.after_seq,
        max_tokens=arguments.max_tokens,
    )
    return DigestResult(
        digest=found.text,
        message_count=found.message_count,
        estimated_tokens=found.estimated_tokens,
        next_after_seq=found.next_after_seq,
        first_seq=found.first_seq,
    )


async def search_context(services: Services, call: Call, arguments: SearchContext) -> SearchResults:
    """Find messages you may see by their words, in one session or in all, and memory with within;
    tolerates typos. Each result has a score and match_preview. exhaustive=false: not all were looked
    at."""
    answer = await search.search_context(
        services,
        call.caller,
        SearchRequest(
            session_id=arguments.session_id,
            query=arguments.query,
            fuzzy_threshold=arguments.fuzzy_threshold,
            limit=arguments.limit,
            search_metadata=arguments.search_metadata,
            visibility=None if arguments.scope == "all" else Visibility(arguments.scope),
            sender=arguments.sender,
            start_time=arguments.start_time,
            end_time=arguments.end_time,
            sort=arguments.sort,
            cursor=arguments.cursor,
            within=arguments.within,
            mode=arguments.mode,
        ),
    )
    return SearchResults(
        results=[
            SearchResult(
                message=MessageItem.of(hit.message),
                score=hit.score,
                match_preview=hit.match_preview,
                highlights=list(map(list, hit.highlights)),
                shortened=hit.shortened,
            )
            for hit in answer.hits
        ],
        memory=[
            MemoryResult(
                key=entry.address.key,
                scope=entry.address.scope,
                session_id=entry.address.session_id,
                version=entry.version,
                updated_at=entry.updated_at,
                updated_by=entry.updated_by,
                score=entry.score,
                match_preview=entry.match_preview,
                highlights=list(map(list, entry.highlights)),
            )
            for entry in answer.memory
        ],
        count=len(answer.hits) + len(answer.memory),
        next_cursor=answer.next_cursor,
        search_time_ms=answer.search_time_ms,
        scanned=answer.scanned,
        exhaustive=answer.exhaustive,
    )


async def wait_for_messages(
    services: Services, call: Call, arguments: WaitForMessages
) -> Written[WaitResult]:
    """Wait until others have written messages that you may see; do not poll. Returns at once if there
    are any, else no later than timeout_seconds (timed_out). Then continue with
    after_seq=next_after_seq (or cursors), and mark_read what you have handled."""
    ids, cursors = _read_sessions(arguments)
    waited = await waiting.wait_for_messages(
        services,
        call.caller,
        waiting.WaitRequest(
            session_ids=ids,
            timeout_seconds=arguments.timeout_seconds,
            limit=arguments.limit,
            cursors=cursors,
            mentions_me=arguments.mentions_me,
            include_own=arguments.include_own,
            has_one=arguments.session_id is not None,
            sender=arguments.sender,
            visibility=arguments.visibility,
        ),
        call.report_progress,
    )
    is_one = arguments.session_id is not None
    result = WaitResult(
        messages=[],
        next_after_seq=waited.cursors[arguments.session_id] if arguments.session_id else None,
        cursors=None if is_one else waited.cursors,
        timed_out=waited.timed_out,
        first_seqs=waited.first_seqs,
    )
    return write_result(result, waited.messages)


def _read_sessions(
    arguments: WaitForMessages,
) -> tuple[tuple[str, ...] | None, dict[str, int]]:
    """Return the ids of the sessions to wait for, None for all, and the cursors given for them."""
    if arguments.session_id is not None:
        for name in ("session_ids", "cursors"):
            if getattr(arguments, name) is not None:
                raise InvalidArgument(
                    f"{name} cannot be given with session_id.",
                    field=name,
                    suggestion="Give session_id with after_seq, or session_ids with cursors.",
                )
        given = arguments.after_seq
        cursors = {} if given is None else {arguments.session_id: given}
        return (arguments.session_id,), cursors
    if arguments.after_seq is not None:
        raise InvalidArgument(
            "after_seq is for the one session of session_id.",
            field="after_seq",
            suggestion="Give session_id, or cursors with a seq for each session.",
        )
    cursors = arguments.cursors or {}
    if arguments.session_ids is None:
        return None, cursors
    ids = tuple(dict.fromkeys(arguments.session_ids))
    for session_id in cursors:
        if session_id not in ids:
            raise InvalidArgument(
                f"cursors has the session {session_id!r}, which is not in session_ids.",
                field="cursors",
                suggestion="Name the session in session_ids too, or leave its cursor out.",
            )
    return ids, cursors


TOOLS = (
    Tool("add_message", AddMessage, MessageAdded, add_message, Permission.WRITE, ADDS),
    Tool("get_messages", GetMessages, MessageList, get_messages, Permission.READ, READS),
    Tool(
        "wait_for_messages",
        WaitForMessages,
        WaitResult,
        wait_for_messages,
        Permission.READ,
        READS,
        is_waiting=True,
    ),
    Tool("mark_read", MarkRead, MarkedRead, mark_read, Permission.READ, SETS),
    Tool("get_digest", GetDigest, DigestResult, get_digest, Permission.READ, READS),
    Tool(
        "search_context",
        SearchContext,
        SearchResults,
        search_context,
        Permission.READ,
        READS,
        is_long=True,
    ),
)
