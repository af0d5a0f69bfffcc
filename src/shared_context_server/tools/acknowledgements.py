"""The tool for acknowledging messages."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from shared_context_server.models import Permission
from shared_context_server.services import acknowledgements
from shared_context_server.services.context import Services
from shared_context_server.tools.arguments import Arguments, MessageId, Result, SessionId, Time
from shared_context_server.tools.registry import SETS, Call, Tool


class AcknowledgeMessage(Arguments):
    session_id: SessionId
    message_id: MessageId


class AcknowledgedBy(BaseModel):
    agent_id: str
    acknowledged_at: Time


class MessageAcknowledged(Result):
    acknowledged: Annotated[bool, Field(description="By you.")]
    acknowledged_at: Time | None
    acknowledged_by: Annotated[
        list[AcknowledgedBy] | None, Field(description="For the sender and admins.")
    ]
    awaiting: list[str] | None


async def acknowledge_message(
    services: Services, call: Call, arguments: AcknowledgeMessage
) -> MessageAcknowledged:
    """Confirm a message with requires_ack. Its sender calls it to see who has, and who has not."""
    found = await acknowledgements.acknowledge_message(
        services, call.caller, arguments.session_id, arguments.message_id
    )
    return MessageAcknowledged(
        acknowledged=found.given is not None,
        acknowledged_at=None if found.given is None else found.given.timestamp,
        acknowledged_by=None
        if found.by is None
        else [
            AcknowledgedBy(agent_id=one.agent_id, acknowledged_at=one.acknowledged_at)
            for one in found.by
        ],
        awaiting=found.awaiting,
    )


TOOLS = (
    Tool(
        "acknowledge_message",
        AcknowledgeMessage,
        MessageAcknowledged,
        acknowledge_message,
        Permission.WRITE,
        SETS,
        is_core=False,
    ),
)
