"""A witness by C2SP tlog-witness and tlog-cosignature, which shares no code with the product's server.

It is fast, can be configured with earlier signatures, and records its refusals. `litewitness.py` has the witness of
another project.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilothouse_client import audit_verifier


def proven(first: int, first_root: bytes, size: int, root: bytes, proof: list[bytes]) -> bool:
    """Returns whether a tree continues a smaller one, by RFC 9162, 2.1.4.2."""
    if first == size:
        return not proof and first_root == root
    if not proof:
        return False
    hashes = [first_root, *proof] if first & (first - 1) == 0 else proof
    node, last = first - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = hashes[0]
    for each in hashes[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = sha256(b"\x01" + each + old).digest(), sha256(b"\x01" + each + new).digest()
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = sha256(b"\x01" + new + each).digest()
        node, last = node >> 1, last >> 1
    return last == 0 and (old, new) == (first_root, root)


@dataclass
class Witness:
    """A witness of the logs in `logs` (key by origin), with the head of each that it signed last.

    `in_parts` sends responses byte by byte. `endless` sends responses without an end; `cut_off` counts those that the
    server cut off.
    """

    name: str
    logs: dict[str, str]
    signed: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)
    _secret: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    address: str = ""
    in_parts: bool = False
    endless: bool = False
    cut_off: int = 0

    @property
    def key(self) -> str:
        public = b"\x04" + self._secret.public_key().public_bytes_raw()
        return f"{self.name}+{self._id.hex()}+{base64.b64encode(public).decode()}"

    @property
    def _id(self) -> bytes:
        public = b"\x04" + self._secret.public_key().public_bytes_raw()
        return sha256(self.name.encode() + b"\n" + public).digest()[:4]

    async def add_checkpoint(self, request: web.Request) -> web.StreamResponse:
        """Handles `POST /add-checkpoint`."""
        answer = self._answer((await request.read()).decode())
        if answer.status != 200:
            self.refused.append(answer.status)
        if not self.in_parts and not self.endless:
            return answer
        parts = web.StreamResponse(status=answer.status)
        await parts.prepare(request)
        while self.endless:
            try:
                await parts.write(b"x" * 4096)
            except ConnectionError:
                self.cut_off += 1
                raise
        for byte in (answer.text or "").encode():
            await parts.write(bytes((byte,)))
            await asyncio.sleep(0)
        return parts

    def _answer(self, body: str) -> web.Response:
        lines, _, note = body.partition("\n\n")
        old, *encoded = lines.split("\n")
        origin = note.split("\n", 1)[0]
        if origin not in self.logs:
            return web.Response(status=404)
        try:
            _, size, root = audit_verifier.head(note, self.logs[origin])
        except audit_verifier.WrongError:
            return web.Response(status=403)
        known, known_root = self.signed.get(origin, (0, b""))
        if int(old.removeprefix("old ")) != known:
            return web.Response(status=409, text=f"{known}\n", content_type="text/x.tlog.size")
        if known and not proven(known, known_root, size, root, [base64.b64decode(each) for each in encoded]):
            return web.Response(status=422)
        self.signed[origin] = (size, root)
        moment = int(time.time())
        text = f"cosignature/v1\ntime {moment}\n{note.partition(chr(10) * 2)[0]}\n"
        signature = self._id + moment.to_bytes(8, "big") + self._secret.sign(text.encode())
        return web.Response(text=f"\u2014 {self.name} {base64.b64encode(signature).decode()}\n")


@asynccontextmanager
async def witness(name: str, logs: dict[str, str]) -> AsyncIterator[Witness]:
    """Runs a witness that listens on its own port."""
    made = Witness(name, logs)
    application = web.Application()
    application.router.add_post("/add-checkpoint", made.add_checkpoint)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    finally:
        await runner.cleanup()
