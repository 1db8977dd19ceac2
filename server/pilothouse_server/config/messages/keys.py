"""Key-encryption keys: value → protobuf."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pilothouse.config.v1 import config_pb2 as pb


def encryption_keys(uses: Mapping[str, int], active: str, held: Collection[str]) -> list[pb.EncryptionKey]:
    """Every key that is in the key file or that something depends on; `held`: those of the key file."""
    known = {*held, *uses, *([active] if active else [])}
    return [
        pb.EncryptionKey(key_id=key, uses=uses.get(key, 0), active=key == active, in_key_file=key in held)
        for key in sorted(known)
    ]
