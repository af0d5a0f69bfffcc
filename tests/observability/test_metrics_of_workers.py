"""The metrics of several workers, which are read from their files, while a worker starts or ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import sys, threading
from pathlib import Path
from shared_context_server.observability.metrics import Metrics

metrics = Metrics()
metrics.expired_sessions.inc()
starting = Path(sys.argv[1]) / "counter_99999.db"  # as a worker leaves it for a moment
starting.touch()
assert metrics.is_shared
threading.Timer(0.02, starting.unlink).start()
print(metrics.render().decode())
"""


def test_a_worker_that_starts_does_not_fail_the_scrape(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)],
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "scs_sessions_expired_total 1.0" in ran.stdout
