"""Calls tools on the server that runs on a data dir, or on the data dir itself while none runs.

A command gives arguments to a tool and shows its answer. It does not know which of the two answers:
both take the call through the same dispatcher and the same policy.
"""
