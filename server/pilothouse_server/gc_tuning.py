"""How often the interpreter looks for garbage in cycles.

A full collection goes over every object that is tracked, and holds the event loop meanwhile: 50 ms and more with all
modules loaded. What stands at the start of a server lives to its end, and what a server keeps after (structs of
clusters' objects, events) forms no cycles, so it is collected seldom, and what was loaded at the start never again.
Nor may a call leave a cycle, however it ends: callers would fill the memory until then.
"""

from __future__ import annotations

import gc


def collect_rarely() -> None:
    """To be called once, when all is loaded."""
    gc.collect()
    gc.freeze()
    # The young are few at a time: thousands of them that live on, such as the pods of a cluster, take milliseconds. A
    # look at all is rarer still: beside two thousand calls that strangers hold it takes 40.
    gc.set_threshold(2_000, 4, 800)
