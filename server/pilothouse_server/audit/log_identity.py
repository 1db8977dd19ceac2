"""The name of the audit log, and the keys that sign its heads.

A key has the name of the log whose heads it signs. After a rewind of the database, the log continues under its name
with the new history's appended, its *origin*. The same seeds then sign as keys with the origin as their name.
"""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse_server.audit import notes
from pilothouse_server.audit.notes import Checkpoint, NoteError, Signer, Verifier
from pilothouse_server.audit.policy import Policy
from pilothouse_server.encryption.keys import KeyRing
from pilothouse_server.settings.model import PREFIX, Settings, SettingsError
from pilothouse_server.store.audit_tree import TreeState

_USE = "audit-log-signature"


class LogIdentity:
    """The name of the log and the keys that sign its heads, newest first; each head has a signature of every key.

    `former`: keys that signed heads before, and now only verify them.
    """

    def __init__(
        self,
        seeds: Sequence[bytes],
        signers: Sequence[Signer],
        origin: str,
        policy: Policy,
        former: Sequence[Verifier] = (),
    ) -> None:
        self._seeds = seeds
        self.policy = policy
        self._signers = signers
        self._former = former
        # The name in the settings; '' if the log may have any name.
        self.wanted = origin

    @classmethod
    def load(cls, settings: Settings, keys: KeyRing) -> LogIdentity:
        """Returns the identity with the keys that the settings name, or else with keys derived from the master keys.

        Raises:
            SettingsError: a key cannot be read, or name and keys do not fit each other.
        """
        try:
            origin = settings.audit_origin and notes.checked_name(settings.audit_origin)
        except NoteError as error:
            raise SettingsError(f"{PREFIX}AUDIT_ORIGIN: {error}") from None
        signers, former = _named_keys(settings)
        names = {signer.name for signer in signers}
        if len(names) > 1 or (origin and signers and names != {origin}):
            raise SettingsError(
                f"{PREFIX}AUDIT_KEY: the keys are named {', '.join(sorted(names))}; every key must have the log's name"
                + (f", which is {origin}" if origin else "")
            )
        policy = Policy.parse(settings.audit_witnesses)
        return cls(keys.derive_each(_USE), signers, origin or next(iter(names), ""), policy, former)

    def signers(self, origin: str) -> list[Signer]:
        """Returns the keys that sign heads of this origin."""
        return [Signer(origin, each.seed) for each in self._signers] or [
            Signer(origin, seed) for seed in self._seeds
        ]

    def origins(self, state: TreeState) -> list[str]:
        """Returns the origins that heads of a log may have; the origin of the present history is last."""
        return list(dict.fromkeys([*self.names(state), *self.signed_origins(state)][::-1]))[::-1]

    def signed_origins(self, state: TreeState) -> list[str]:
        """Returns the origins under which heads of a log were signed; that of the next head is last."""
        own = [origin for origin in state.origins if self._is_name(origin, state)]
        return list(dict.fromkeys([*own, origin_of(state)][::-1]))[::-1]

    def verifiers(self, state: TreeState) -> list[Verifier]:
        """Returns the keys that may have signed heads of a log, under each of its origins.

        They are the present signers, the keys derived from the master keys, and former keys.
        """
        origins = self.origins(state)[::-1]
        found = [signer.verifier for origin in origins for signer in self.signers(origin)]
        found += [Signer(origin, seed).verifier for origin in origins for seed in self._seeds]
        found += [Verifier(origin, each.public) for origin in origins for each in self._former]
        return list(dict.fromkeys(found))

    def names(self, state: TreeState) -> list[str]:
        """Returns the name of a log; and the name before that, if the log got its name from the settings."""
        name, unnamed = name_of(state), _unnamed(state)
        return [name, unnamed] if self.wanted == name != unnamed else [name]

    def is_of_log(self, checkpoint: Checkpoint, state: TreeState) -> bool:
        """Returns whether the origin of a head is a name of this log.

        After a rewind of the database the origin is the name, a slash and the history.
        """
        return self._is_name(checkpoint.origin, state)

    def _is_name(self, origin: str, state: TreeState) -> bool:
        return any(f"{origin}/".startswith(f"{name}/") for name in self.names(state))


def _named_keys(settings: Settings) -> tuple[list[Signer], list[Verifier]]:
    """Returns the keys that sign, and the former keys, which only verify."""
    if settings.audit_key_file is None:
        text, name = settings.audit_key, "AUDIT_KEY"
    else:
        name = "AUDIT_KEY_FILE"
        try:
            text, mode = settings.audit_key_file.read_text(), settings.audit_key_file.stat().st_mode
        except (OSError, UnicodeDecodeError):
            raise SettingsError(f"{PREFIX}{name}: {settings.audit_key_file} cannot be read") from None
        if mode & 0o077:
            raise SettingsError(
                f"{PREFIX}{name}: {settings.audit_key_file} can be read by others: chmod 600 it"
            )
    try:
        signers = [Signer.parse(line) for line in text.split() if notes.is_secret(line)]
        former = [Verifier.parse(line) for line in text.split() if not notes.is_secret(line)]
    except NoteError as error:
        raise SettingsError(f"{PREFIX}{name}: {error}") from None
    if any(verifier.witness for verifier in former):
        raise SettingsError(f"{PREFIX}{name}: must contain log keys only, but contains a witness key")
    if settings.audit_key_file is not None and not (signers or former):
        raise SettingsError(f"{PREFIX}{name}: {settings.audit_key_file} contains no key")
    return signers, former


def name_of(state: TreeState) -> str:
    """Returns the name of the log and of its keys."""
    return state.origin or _unnamed(state)


def _unnamed(state: TreeState) -> str:
    return f"pilothouse/{state.log_id}"


def origin_of(state: TreeState) -> str:
    """Returns the first line of the log's heads: its name, and after a rewind of the database, its history."""
    name = name_of(state)
    return name if state.head_history == state.history else f"{name}/{state.head_history[:8]}"
