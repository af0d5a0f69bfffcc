# Written by `make docs` from the server's registry of tools. Do not edit.
"""The methods of clients, batches and outboxes."""

from __future__ import annotations

from shared_context_client import forms
from shared_context_client._generated.calls import Calls


class AsyncTools(forms.AsyncForm):
    """One coroutine method a tool."""

    authenticate_agent = forms.awaited(Calls.authenticate_agent)
    refresh_token = forms.awaited(Calls.refresh_token)
    revoke_token = forms.awaited(Calls.revoke_token)
    create_session = forms.awaited(Calls.create_session)
    list_sessions = forms.awaited(Calls.list_sessions)
    get_session = forms.awaited(Calls.get_session)
    close_session = forms.awaited(Calls.close_session)
    delete_session = forms.awaited(Calls.delete_session)
    add_message = forms.awaited(Calls.add_message)
    get_messages = forms.awaited(Calls.get_messages)
    wait_for_messages = forms.awaited(Calls.wait_for_messages)
    mark_read = forms.awaited(Calls.mark_read)
    get_digest = forms.awaited(Calls.get_digest)
    search_context = forms.awaited(Calls.search_context)
    acknowledge_message = forms.awaited(Calls.acknowledge_message)
    set_memory = forms.awaited(Calls.set_memory)
    get_memory = forms.awaited(Calls.get_memory)
    list_memory = forms.awaited(Calls.list_memory)
    delete_memory = forms.awaited(Calls.delete_memory)
    acquire_lease = forms.awaited(Calls.acquire_lease)
    release_lease = forms.awaited(Calls.release_lease)
    list_leases = forms.awaited(Calls.list_leases)
    add_task = forms.awaited(Calls.add_task)
    claim_task = forms.awaited(Calls.claim_task)
    finish_task = forms.awaited(Calls.finish_task)
    list_tasks = forms.awaited(Calls.list_tasks)
    list_agents = forms.awaited(Calls.list_agents)
    set_status = forms.awaited(Calls.set_status)
    get_audit_log = forms.awaited(Calls.get_audit_log)
    get_time = forms.awaited(Calls.get_time)
    get_temperature = forms.awaited(Calls.get_temperature)
    get_humidity = forms.awaited(Calls.get_humidity)
    get_all_sensors = forms.awaited(Calls.get_all_sensors)


class SyncTools(forms.SyncForm):
    """One method a tool, that returns when it is answered."""

    authenticate_agent = forms.blocking(Calls.authenticate_agent)
    refresh_token = forms.blocking(Calls.refresh_token)
    revoke_token = forms.blocking(Calls.revoke_token)
    create_session = forms.blocking(Calls.create_session)
    list_sessions = forms.blocking(Calls.list_sessions)
    get_session = forms.blocking(Calls.get_session)
    close_session = forms.blocking(Calls.close_session)
    delete_session = forms.blocking(Calls.delete_session)
    add_message = forms.blocking(Calls.add_message)
    get_messages = forms.blocking(Calls.get_messages)
    wait_for_messages = forms.blocking(Calls.wait_for_messages)
    mark_read = forms.blocking(Calls.mark_read)
    get_digest = forms.blocking(Calls.get_digest)
    search_context = forms.blocking(Calls.search_context)
    acknowledge_message = forms.blocking(Calls.acknowledge_message)
    set_memory = forms.blocking(Calls.set_memory)
    get_memory = forms.blocking(Calls.get_memory)
    list_memory = forms.blocking(Calls.list_memory)
    delete_memory = forms.blocking(Calls.delete_memory)
    acquire_lease = forms.blocking(Calls.acquire_lease)
    release_lease = forms.blocking(Calls.release_lease)
    list_leases = forms.blocking(Calls.list_leases)
    add_task = forms.blocking(Calls.add_task)
    claim_task = forms.blocking(Calls.claim_task)
    finish_task = forms.blocking(Calls.finish_task)
    list_tasks = forms.blocking(Calls.list_tasks)
    list_agents = forms.blocking(Calls.list_agents)
    set_status = forms.blocking(Calls.set_status)
    get_audit_log = forms.blocking(Calls.get_audit_log)
    get_time = forms.blocking(Calls.get_time)
    get_temperature = forms.blocking(Calls.get_temperature)
    get_humidity = forms.blocking(Calls.get_humidity)
    get_all_sensors = forms.blocking(Calls.get_all_sensors)


class BatchTools(forms.BatchForm):
    """One method a tool, that takes the call into the batch."""

    authenticate_agent = forms.batched(Calls.authenticate_agent)
    refresh_token = forms.batched(Calls.refresh_token)
    revoke_token = forms.batched(Calls.revoke_token)
    create_session = forms.batched(Calls.create_session)
    list_sessions = forms.batched(Calls.list_sessions)
    get_session = forms.batched(Calls.get_session)
    close_session = forms.batched(Calls.close_session)
    delete_session = forms.batched(Calls.delete_session)
    add_message = forms.batched(Calls.add_message)
    get_messages = forms.batched(Calls.get_messages)
    wait_for_messages = forms.batched(Calls.wait_for_messages)
    mark_read = forms.batched(Calls.mark_read)
    get_digest = forms.batched(Calls.get_digest)
    search_context = forms.batched(Calls.search_context)
    acknowledge_message = forms.batched(Calls.acknowledge_message)
    set_memory = forms.batched(Calls.set_memory)
    get_memory = forms.batched(Calls.get_memory)
    list_memory = forms.batched(Calls.list_memory)
    delete_memory = forms.batched(Calls.delete_memory)
    acquire_lease = forms.batched(Calls.acquire_lease)
    release_lease = forms.batched(Calls.release_lease)
    list_leases = forms.batched(Calls.list_leases)
    add_task = forms.batched(Calls.add_task)
    claim_task = forms.batched(Calls.claim_task)
    finish_task = forms.batched(Calls.finish_task)
    list_tasks = forms.batched(Calls.list_tasks)
    list_agents = forms.batched(Calls.list_agents)
    set_status = forms.batched(Calls.set_status)
    get_audit_log = forms.batched(Calls.get_audit_log)
    get_time = forms.batched(Calls.get_time)
    get_temperature = forms.batched(Calls.get_temperature)
    get_humidity = forms.batched(Calls.get_humidity)
    get_all_sensors = forms.batched(Calls.get_all_sensors)


class OutboxTools(forms.OutboxForm):
    """One method for each write that may be repeated, that takes it into the outbox."""

    add_message = forms.queued(Calls.add_message)
    set_memory = forms.queued(Calls.set_memory)
    add_task = forms.queued(Calls.add_task)
    claim_task = forms.queued(Calls.claim_task)
    finish_task = forms.queued(Calls.finish_task)
