"""Values that every noun shares: quantities, image references, names, label selectors.

These modules do not depend on requests, rows or clusters. A parser raises `InvalidValueError`. Its message states a
rule that a caller can act on. It never repeats the value, which may be a secret in the wrong field.
"""

from __future__ import annotations


class InvalidValueError(ValueError):
    """A text that breaks the grammar of its kind. `str(error)` is the rule that it breaks."""
