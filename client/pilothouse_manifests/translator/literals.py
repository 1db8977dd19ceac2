"""Finds values in a manifest that look like credentials in plain text.

All who may see a container also see its variables and arguments. A value that only the program should read belongs in a
Secret. The names of the values decide: the server masks the same names in the audit log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pilothouse_manifests.fields import Values

_ALONE = re.compile(
    r"(?:^|_)(?:(?:pass|pwd|key|authorization|cookie|jwt|bearer|otp|dsn)s?(?:$|_)|(?:auth|pin|salt)s?$)"
)
_ANYWHERE = re.compile(
    r"passw(?:or)?d|passphrase|passcode|secret|token|credential|api_?key|access_?key|private_?key"
    r"|connection_?str(?:ing)?"
)
_PARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
# A password in the user information of a URL; a reference to a variable does not count.
_URL_PASSWORD = re.compile(r"""://[^\s/?#:@"']*:(?!\$\([\w.\-]+\)@)[^\s/?#"']+@""")
_ARGUMENT = re.compile(r"(--?[A-Za-z][\w.\-]*)(=?)(.*)", re.DOTALL)
# An argument that begins with a variable or a header: `DB_PASSWORD=…`, `Authorization: …`.
_SET = re.compile(r"([A-Za-z_][\w.\-]*)(?:=|:\s)\s*(.*)", re.DOTALL)
# Requests that the node sends to a program.
_REQUESTS = (
    ("probes", "liveness", "liveness probe"),
    ("probes", "readiness", "readiness probe"),
    ("probes", "startup", "startup probe"),
    ("lifecycle", "post_start", "post_start hook"),
    ("lifecycle", "pre_stop", "pre_stop hook"),
)
# Paths, switches and references: not values.
_NO_VALUE = re.compile(r"/.*|true|false|\$\(.*\)|", re.IGNORECASE)


def reads_like_a_credential(name: str) -> bool:
    """Returns whether a value with this name is likely a password, a token, a key or similar."""
    parts = "_".join(part for part in _PARTS.split(name) if part).lower()
    return _ALONE.search(parts) is not None or _ANYWHERE.search(parts) is not None


def literals(container: Values) -> Iterator[tuple[str, str]]:
    """Yields the field and the name of each value of a container that looks like a credential."""
    yield from _of_program(container, "")
    for field, word in (("sidecars", "sidecar"), ("init_containers", "init container")):
        for program in container.get(field, ()):
            for _, name in _of_program(program, f" of {word} {program['name']}"):
                yield field, name


def _of_program(program: Values, whose: str) -> Iterator[tuple[str, str]]:
    for variable in program.get("env", ()):
        value = variable.get("value", "")
        if variable.get("value_from", "literal") != "literal" or not _is_value(value):
            continue
        if reads_like_a_credential(variable["name"]) or _URL_PASSWORD.search(value):
            yield "env", f"variable {variable['name']}{whose}"
    for field in ("args", "command"):
        for name in _named(program.get(field, ())):
            yield field, f"argument {name}{whose}"
    for field, part, what in _REQUESTS:
        sent = program.get(field, {}).get(part, {}).get("http_get", {})
        for header in sent.get("http_headers", ()):
            if _is_value(header.get("value", "")) and reads_like_a_credential(header["name"]):
                yield field, f"header {header['name']} of the {what}{whose}"


def _named(arguments: Iterable[str]) -> Iterator[str]:
    """Yields the names that suggest a credential and have a value.

    They are options, with the value after `=` or as the next argument, and variables and headers.
    """
    before = ""
    for argument in arguments:
        if before and not argument.startswith("-") and _is_value(argument):
            yield before
        before = ""
        if (found := _SET.fullmatch(argument)) is not None:
            if reads_like_a_credential(found[1]) and _is_value(found[2]):
                yield found[1]
            continue
        found = _ARGUMENT.fullmatch(argument)
        if found is None or not reads_like_a_credential(found[1]):
            continue
        if found[2] and _is_value(found[3]):
            yield found[1]
        elif not found[2] and not found[3]:
            before = found[1]


def _is_value(text: str) -> bool:
    return _NO_VALUE.fullmatch(text) is None
