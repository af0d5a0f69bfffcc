"""The index of vectors on disk: finds the messages and memory entries whose meaning is near a query.

Like the search index it is derived from the store and can be lost at any time, and it has the same
keys for who may find a document. `embedders` and `onnx_embedder` make vectors from texts, `windows`
cuts long texts, `layout` says what is stored, `writer` and `reader` use it. It needs the extra
`semantic`; numpy and the model are imported on first use.
"""
