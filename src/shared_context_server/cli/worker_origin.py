"""What the process that workers are forked from imports last; it serves nothing itself.

Garbage collection writes to every object that it looks at, and a page that is written to is shared
no longer. So workers do not look at what was imported before they were forked.
"""

from __future__ import annotations

import gc

gc.collect()
gc.freeze()
