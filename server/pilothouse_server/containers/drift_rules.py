"""Changes by others that are no drift, and those that ADOPT may not take over."""

from __future__ import annotations

from typing import Final

import msgspec

from pilothouse_server.values.guarded_keys import POD_KEYS
from pilothouse_server.values.key_patterns import KeyPatterns
from pilothouse_server.values.permitted_additions import PermittedAdditions


class DriftRules(msgspec.Struct, frozen=True):
    """`permitted`: permitted additions by others. `guarded_keys`: annotations and labels of pods that ADOPT leaves
    alone.
    """

    permitted: PermittedAdditions
    guarded_keys: KeyPatterns


# The defaults of the settings.
DEFAULT_RULES: Final = DriftRules(PermittedAdditions(), KeyPatterns(",".join(POD_KEYS), guarding=True))
