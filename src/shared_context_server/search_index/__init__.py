"""The search index on disk: finds the messages and memory entries that may match a query.

It is derived from the store and can be lost at any time. It takes terms that are ready to be looked
up, and knows nothing of words or scores. `documents` says what is stored, `audience` who may find
it, `folder` where it is, `writer` and `reader` how it is used. Tantivy is the engine; it is imported
on first use.
"""
