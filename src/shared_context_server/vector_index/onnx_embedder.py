"""Make vectors with a sentence-transformers model in the ONNX format, on one core.

The vector of a text is the mean of its tokens' vectors, as all-MiniLM, e5, gte and most small models
want it. A model that returns one vector for a text is taken as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

MAX_TOKENS = 256  # of one text; what follows is not read


class OnnxEmbedder:
    """One loaded model. Its memory: 150 to 200 MB for all-MiniLM-L6-v2."""

    def __init__(self, model: Path, tokenizer: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # it keeps the memory of the longest batch
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [given.name for given in self._session.get_inputs()]
        digest = hashlib.sha256(tokenizer.read_bytes())
        with model.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        self.name = f"onnx:{digest.hexdigest()[:16]}"
        self.dimensions = int(self.embed(["x"]).shape[1])

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        encoded = self._tokenizer.encode_batch(list(texts))
        longest = max(len(one.ids) for one in encoded)
        ids = np.zeros((len(encoded), longest), np.int64)
        mask = np.zeros_like(ids)
        for number, one in enumerate(encoded):
            ids[number, : len(one.ids)] = one.ids
            mask[number, : len(one.ids)] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (found, *_) = self._session.run(None, {name: given[name] for name in self._inputs})
        vectors: NDArray[np.float32] = np.asarray(found, np.float32)
        if vectors.ndim == 3:
            shares = mask[:, :, None].astype(np.float32)
            vectors = (vectors * shares).sum(1) / shares.sum(1)
        return vectors
