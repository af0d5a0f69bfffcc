"""Tools for messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from shared_context_server.models import (
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
    IdempotencyKey,
    Integer,
    JsonMembers,
    LeaseName,
    MessageId,
    Metadata,
    Number,
    Result,
    Seq,
    SessionId,
    Time,
    TimeArgument,
)
from shared_context_server.tools.leases import fence_of
from shared_context_server.tools.registry import ADDS, READS, SETS, Call, Tool
from shared_context_server.tools.written import Written, write_result


@dataclass(slots=True)
class MessageItem:
    """A message as every surface shows it: the fields of Message, in order. It is not a model,
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

    @classmethod
    def of(cls, message: Message) -> MessageItem:
        return cls(*message)


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
    lease: Annotated[LeaseName | None, Field(description="Refuse unless you hold it.")] = None
    fencing_token: FencingToken | None = None


class MessageAdded(Result):
    message_id: int
    seq: int
    timestamp: Time
    duplicate: bool


class GetMessages(Arguments):
    session_id: SessionId
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 50
    offset: Annotated[Integer, Field(ge=0, le=2**31)] = 0
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


class WaitForMessages(Arguments):
    session_id: SessionId
    after_seq: Annotated[Seq | None, Field(description="Default: your stored cursor.")] = None
    timeout_seconds: Annotated[Number, Field(ge=0, le=120)] = 25
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 50
    mentions_me: Annotated[
        bool, Field(description="Only messages to you, or with @your-agent-id.")
    ] = False
    sender: AgentId | None = None
    visibility: Visibility | None = None


class WaitResult(Result):
    messages: list[MessageItem]
    next_after_seq: int
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


class SearchContext(Arguments):
    session_id: Annotated[SessionId | None, Field(description="Default: all you may see.")] = None
    query: Annotated[str, Field(min_length=1, max_length=1000)]
    fuzzy_threshold: Annotated[Number, Field(ge=0, le=100)] = 60
    limit: Annotated[Integer, Field(ge=1, le=100)] = 10
    scope: Literal["all", "public", "private", "agent_only", "admin_only"] = "all"
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
    )
    return write_result(result, page.messages)


async def add_message(services: Services, call: Call, arguments: AddMessage) -> MessageAdded:
    """Add a message to a session. Returns once it is stored durably."""
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
    )
    return MessageAdded(
        message_id=added.id, seq=added.seq, timestamp=added.timestamp, duplicate=added.duplicate
    )


async def get_messages(
    services: Services, call: Call, arguments: GetMessages
) -> Written[MessageList]:
    """Get messages you may see, in seq order: the newest, or those after after_seq. Continue with
    after_seq=next_after_seq."""
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
    """Store how far you have read; your cursor never moves back."""
    position = await messages.mark_read(services, call.caller, arguments.session_id, arguments.seq)
    return MarkedRead(seq=position.seq, unread=position.unread)


async def get_digest(services: Services, call: Call, arguments: GetDigest) -> DigestResult:
    """Get what happened since your cursor, in few tokens: who wrote, decisions, open questions,
    newest messages in full. Mark messages with metadata type "decision" or "question"."""
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
    )


async def search_context(services: Services, call: Call, arguments: SearchContext) -> SearchResults:
    """Search messages and memory you may see: in one session or in all. Tolerates typos."""
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
    """Wait until there are messages after after_seq that you may see; do not poll. Then continue
    with after_seq=next_after_seq, and mark_read what you have handled."""
    waited = await waiting.wait_for_messages(
        services,
        call.caller,
        waiting.WaitRequest(
            session_id=arguments.session_id,
            after_seq=arguments.after_seq,
            timeout_seconds=arguments.timeout_seconds,
            limit=arguments.limit,
            mentions_me=arguments.mentions_me,
            sender=arguments.sender,
            visibility=arguments.visibility,
        ),
        call.report_progress,
    )
    result = WaitResult(
        messages=[], next_after_seq=waited.next_after_seq, timed_out=waited.timed_out
    )
    return write_result(result, waited.messages)


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
    Tool("search_context", SearchContext, SearchResults, search_context, Permission.READ, READS),
)
