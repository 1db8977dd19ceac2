"""Self-signed server certificates: trusted on first use, as `ssh` does with hosts.

`login` shows the fingerprint before it asks for the password, and stores the certificate in the context. From then on,
no other certificate is accepted from that server, even one signed by an authority, until `login
--trust-new-certificate` is used. If an authority had signed the server's certificate before, a certificate without an
authority is refused, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pilothouse_client.commands import hints
from pilothouse_client.commands.failures import AWAY, CommandError
from pilothouse_client.commands.terminal import say

if TYPE_CHECKING:
    from pilothouse_client.config_file import Context
    from pilothouse_client.handshake import Shown
    from pilothouse_client.target import Target, Tls


@dataclass(frozen=True, slots=True)
class Trust:
    """A server's self-signed certificate as PEM, and a name in it; both are empty if authorities decide."""

    certificate: str = ""
    server_name: str = ""

    def tls(self) -> Tls | None:
        """Returns the TLS settings of a connection; None if the authorities decide."""
        from pilothouse_client import Tls

        if not self.certificate:
            return None
        return Tls(self.certificate.encode("ascii"), server_name=self.server_name, pinned=True)


@dataclass(frozen=True, slots=True)
class Wish:
    """The command line's options for the certificate: its fingerprint, and whether it may be a new one."""

    fingerprint: str = ""
    new: bool = False


def trust_in(target: Target, former: Context | None, wish: Wish) -> Trust:
    """Returns how to trust the server; `former` is the context of an earlier log-in there.

    Raises:
        CommandError: its certificate differs from the former one, or from the fingerprint.
    """
    from pilothouse_client.handshake import shown_by

    if target.tls is None or "," in target.address or target.address.startswith("unix:"):
        if wish.fingerprint:
            raise CommandError(
                "--fingerprint needs one server that is called by TLS: give one HOST:PORT and --secure", 2
            )
        return Trust()
    shown = shown_by(target.address, target.tls)
    if shown is None:
        # No server listens, or it does not speak TLS: the next call reports that.
        return Trust() if former is None else Trust(former.certificate, former.server_name)
    _check(target, former, wish, shown)
    if shown.trusted or not shown.self_signed:
        return Trust()
    if former is not None and former.certificate == shown.pem:
        return Trust(former.certificate, former.server_name)
    return _pinned(target, shown)


def _check(target: Target, former: Context | None, wish: Wish, shown: Shown) -> None:
    from pilothouse_client.handshake import fingerprint_of, same_fingerprint

    if wish.fingerprint:
        if not same_fingerprint(wish.fingerprint, shown.fingerprint):
            raise CommandError(
                f"{target.address} presents a certificate with another fingerprint: {shown.fingerprint}", AWAY
            )
        return
    if former is None or wish.new:
        return
    if former.certificate:
        if former.certificate != shown.pem:
            known = fingerprint_of(former.certificate)
            raise _changed(target, f"{shown.fingerprint} instead of {known}")
    elif former.vouched_for and not shown.trusted:
        raise _changed(target, f"{shown.fingerprint}, which no trusted authority has issued")


def _changed(target: Target, how: str) -> CommandError:
    return CommandError(
        f"{target.address} presents a different certificate than before: {how}\n"
        "the server was reinstalled, or somebody intercepts the connection; no password was sent\n"
        f"{hints.trust_new()}",
        AWAY,
    )


def _pinned(target: Target, shown: Shown) -> Trust:
    from pilothouse_client.handshake import name_in

    name = name_in(shown.pem, target.address)
    if not name:
        raise CommandError(_unusable(target, shown), AWAY)
    say(
        f"{target.address} presents a self-signed certificate; it is trusted from now on\n"
        f"  fingerprint  {shown.fingerprint}\n"
        "compare it with what the server printed when it started",
        err=True,
    )
    return Trust(shown.pem, name)


def _unusable(target: Target, shown: Shown) -> str:
    """Returns why a server's own certificate cannot be trusted, and the remedy."""
    from pilothouse_client.handshake import NAME_MISMATCH, find_problem
    from pilothouse_client.target import Target, Tls

    found = find_problem(Target(target.address, Tls(shown.pem.encode("ascii"))))
    if found is None or found.problem == NAME_MISMATCH:
        return f"the certificate of {target.address} has no name, so it cannot be trusted"
    remedy = hints.remedy_of(found.problem)
    return f"{found.message}\n  {remedy}" if remedy else found.message
