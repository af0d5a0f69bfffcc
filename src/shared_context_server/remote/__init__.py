"""Use a running server from small programs: hooks, watchers, channels.

The modules `access`, `calls`, `told` and `hook` import little of the standard library and nothing of
the server, because a hook runs at every step of an agent and has 100 ms.
"""
