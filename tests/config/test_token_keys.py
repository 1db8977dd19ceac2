"""A wrapping key is requested from a token once, however many callers need it, and is not cached for long."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from pilothouse_server.encryption import token_keys
from pilothouse_server.encryption.envelopes import Binding, Envelopes, Sealed
from pilothouse_server.encryption.hsm.token import PkcsToken, TokenLocation
from pilothouse_server.encryption.keys import KeyRing
from pilothouse_server.encryption.token_keys import KeyNotAtHand, TokenKeys
from pilothouse_server.errors import Unavailable
from tests.waiting import patient

HERE = Binding("secrets", "ciphertext", "7a0c", "12")
KEY_ID = "0123456789abcdef"


class Token:
    """A token in this process, which counts its requests, yields to other tasks, and may be unreachable."""

    def __init__(self) -> None:
        self.unwrapped = 0
        self.away = False

    async def keys(self) -> Mapping[str, str]:
        return {KEY_ID: "first"}

    async def wrap(self, _key_id: str, plaintext: bytes) -> bytes:
        return bytes(each ^ 0x5A for each in plaintext)

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        self.unwrapped += 1
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("the token is away", reason="ENCRYPTION_TOKEN_AWAY")
        return await self.wrap(key_id, wrapped)

    async def close(self) -> None:
        """Closes nothing."""


async def sealed_by(token: Token, count: int) -> tuple[Envelopes, TokenKeys, list[Sealed]]:
    """Returns sealed values, each under its own wrapping key, none of which is cached."""
    keys = TokenKeys(token)
    envelopes = Envelopes(KeyRing([bytes(32)]), keys, ("pkcs11", "file"))
    await envelopes.refresh()
    boxes = []
    for _ in range(count):
        with pytest.raises(KeyNotAtHand) as missing:
            envelopes.seal(b"the value", HERE, KEY_ID)
        await missing.value.bring()
        boxes.append(envelopes.seal(b"the value", HERE, KEY_ID))
        keys.forget()
    return envelopes, keys, boxes


async def test_concurrent_callers_request_a_key_once() -> None:
    token = Token()
    envelopes, keys, boxes = await sealed_by(token, 2)
    await asyncio.gather(*(envelopes.at_hand(box) for box in boxes * 100))
    assert token.unwrapped == 2
    assert [envelopes.open(box, HERE) for box in boxes] == [b"the value"] * 2
    keys.forget()
    with pytest.raises(KeyNotAtHand):
        envelopes.open(boxes[0], HERE)


async def test_an_unreachable_token_fails_all_waiting_callers_together() -> None:
    token = Token()
    envelopes, _, (box,) = await sealed_by(token, 1)
    token.away = True
    failures = await asyncio.gather(*(envelopes.at_hand(box) for _ in range(100)), return_exceptions=True)
    assert {getattr(each, "reason", "") for each in failures} == {"ENCRYPTION_TOKEN_AWAY"}
    assert token.unwrapped == 1
    token.away = False
    await envelopes.at_hand(box)
    assert envelopes.open(box, HERE) == b"the value"


async def test_an_unwrapped_key_is_not_cached_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    token = Token()
    envelopes, _, (box,) = await sealed_by(token, 1)
    monkeypatch.setattr(token_keys, "KEPT_SECONDS", -1.0)
    await envelopes.at_hand(box)
    with pytest.raises(KeyNotAtHand):
        envelopes.open(box, HERE)


async def test_a_missing_package_of_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pkcs11.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    opened = PkcsToken(TokenLocation(tmp_path / "library.so", "vault", "", "pilothouse", patient(5.0)))
    with pytest.raises(Unavailable, match=r"with the extra pkcs11"):
        await opened.keys()
    await opened.close()


async def test_all_keys_that_a_rotation_needs_are_requested_together() -> None:
    token = Token()
    envelopes, _, boxes = await sealed_by(token, 3)
    with pytest.raises(KeyNotAtHand) as missing:
        envelopes.require(((box.data_key, box.key_id) for box in boxes), KEY_ID)
    assert len(missing.value.wanted) == 4
    await missing.value.bring()
    envelopes.require(((box.data_key, box.key_id) for box in boxes), KEY_ID)
    for box in boxes:
        again = envelopes.rewrap(box.data_key, box.key_id, HERE, KEY_ID)
        assert envelopes.open(Sealed(box.ciphertext, again, KEY_ID), HERE) == b"the value"
