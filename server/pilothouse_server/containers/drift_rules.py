"""The settings for changes by others: those that are not drift, and those that ADOPT may not take over."""

from __future__ import annotations

from typing import Final

import msgspec

from pilothouse_server.values.guarded_keys import POD_KEYS
from pilothouse_server.values.key_patterns import KeyPatterns
from pilothouse_server.values.permitted_additions import PermittedAdditions


class DriftRules(msgspec.Struct, frozen=True):
    """The settings that drift detection and ADOPT follow.

    `permitted`: additions by others that are not drift. `guarded_keys`: annotation and label keys of pods that ADOPT
    does not take over.
    """

    permitted: PermittedAdditions
    guarded_keys: KeyPatterns


# The defaults of the settings.
DEFAULT_RULES: Final = DriftRules(PermittedAdditions(), KeyPatterns(",".join(POD_KEYS), guarding=True))
