"""Sensor source `simulated`: invented values for demonstrations. Records are marked as simulated."""

import math
import time

from shared_context_server.clock.sources.channels import Channels

PERIOD_S = 600.0


class SimulatedSource:
    """A sine wave with a period of ten minutes: 21 ± 2 °C, 45 ± 5 % relative humidity."""

    name = "simulated"

    def read(self) -> Channels:
        phase = 2 * math.pi * time.time() / PERIOD_S
        return Channels(
            temperature=round(21.0 + 2.0 * math.sin(phase), 2),
            humidity=round(45.0 - 5.0 * math.sin(phase), 2),
            is_simulated=True,
        )

    def close(self) -> None:
        return None
