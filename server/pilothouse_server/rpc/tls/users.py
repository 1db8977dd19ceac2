"""The user of a client certificate: rules from its names to users.

A file of lines, each with a kind of name, a pattern and a user; `#` begins a comment. The first line that matches one
of the certificate's names counts:

    # kind   pattern                              user
    uri      spiffe://example.org/ns/shop/sa/ci   ci-bot
    uri      spiffe://example.org/ns/shop/*       shop-programs
    dns      runner.ci.example.com                ci-bot
    dns      *.runners.example.com                runners
    email    anna@example.com                     anna

Names are those of the extension subjectAltName; the subject is ignored. In a URI a `*` must be at the end, after
a slash, and matches any rest, so that `…/shop/*` never matches `…/shop-of-others`. In a host name it matches one label,
or the end of one (`*.example.com`, `runner-*.example.com`), as in server certificates. Before the `@` of a mailbox it
matches any text (`*@example.com`).

A URI with a query, a fragment, or `.` or `..` as a segment, encoded or not, matches no rule, because programs read
such URIs differently.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, cast
from urllib.parse import unquote

from cryptography import x509

from pilothouse_server.rpc.tls import files
from pilothouse_server.settings.model import PREFIX, SettingsError
from pilothouse_server.values import InvalidValueError
from pilothouse_server.values.names import principal_problem

Kind = Literal["dns", "uri", "email"]
_KINDS: Final = ("dns", "uri", "email")
# The character that a * does not match.
_ENDS: Final = {"dns": ".", "email": "@"}
_SETTING = "TLS_CLIENT_USERS_FILE"
_MOST_RULES = 10_000
# A certificate with more names than this is treated as having none.
_MOST_NAMES = 100


class Name(NamedTuple):
    """A name of a certificate.

    A host name, and the host of a mailbox, are in lower case.
    """

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the file.

    `pattern` has the form of `Name.text`; `line` is the line number.
    """

    kind: Kind
    pattern: str
    username: str
    line: int

    def takes(self, name: Name) -> bool:
        """Returns whether the rule matches this name."""
        before, star, after = self.pattern.partition("*")
        if name.kind != self.kind or not star:
            return name == (self.kind, self.pattern)
        if not (name.text.startswith(before) and name.text.endswith(after)):
            return False
        taken = name.text[len(before) : len(name.text) - len(after)]
        # A * matches any rest of a URI, one label of a host, and everything before the host of a mailbox.
        return self.kind == "uri" or (bool(taken) and _ENDS[self.kind] not in taken)


@dataclass(frozen=True, slots=True)
class UserRules:
    """The rules in the order of their lines."""

    rules: tuple[Rule, ...]

    def match(self, names: Iterable[Name]) -> tuple[str, Name] | None:
        """Returns the user of a certificate with these names, and the name that matched; None if no rule matches."""
        found = tuple(names)
        for rule in self.rules:
            for name in found:
                if rule.takes(name):
                    return rule.username, name
        return None


def load(path: Path) -> UserRules:
    """Returns the rules of a file.

    Raises:
        SettingsError: the file cannot be read, or a line is not a rule; the text names the line.
    """
    try:
        text = files.read(_SETTING, path).decode()
    except UnicodeDecodeError:
        raise SettingsError(f"{PREFIX}{_SETTING}: {path} is not text in UTF-8") from None
    rules: dict[tuple[Kind, str], Rule] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split() if line.lstrip().startswith("#") else _words(line)
        if not words:
            continue
        try:
            rule = _rule(words, number)
        except InvalidValueError as error:
            raise SettingsError(f"{PREFIX}{_SETTING}: {path}, line {number}: {error}") from None
        first = rules.setdefault((rule.kind, rule.pattern), rule)
        if first is not rule:
            raise SettingsError(
                f"{PREFIX}{_SETTING}: {path}, line {number}: matches the same names as line {first.line}"
            )
    if not rules:
        raise SettingsError(f"{PREFIX}{_SETTING}: {path} has no rule")
    if len(rules) > _MOST_RULES:
        raise SettingsError(f"{PREFIX}{_SETTING}: {path} has more than {_MOST_RULES} rules")
    return UserRules(tuple(rules.values()))


def _words(line: str) -> list[str]:
    """Returns the words of a line without a comment.

    A URI may contain `#`, so a comment must begin a word.
    """
    words = []
    for word in line.split():
        if word.startswith("#"):
            break
        words.append(word)
    return words


def _rule(words: list[str], line: int) -> Rule:
    """Returns the rule of a line.

    Raises InvalidValueError; its text names the wrong part.
    """
    if len(words) != 3:
        raise InvalidValueError("must have three words: KIND PATTERN USER")
    kind, pattern, username = words
    if kind not in _KINDS:
        raise InvalidValueError(f"{kind!r} must be dns, uri or email")
    if (problem := principal_problem(username)) is not None:
        raise InvalidValueError(f"the user's name {problem}")
    _check_pattern(kind, pattern)
    return Rule(cast("Kind", kind), _comparable(kind, pattern), username, line)


def _check_pattern(kind: str, pattern: str) -> None:
    fixed = pattern.replace("*", "", 1)
    if "*" in fixed:
        raise InvalidValueError("a pattern may have at most one *")
    if kind == "uri":
        _check_uri(pattern, fixed)
    elif kind == "dns":
        first, _, rest = pattern.partition(".")
        if "*" in rest or ("*" in first and not first.endswith("*")):
            raise InvalidValueError(
                "a * must be the first label or its end, as in *.example.com or runner-*.example.com"
            )
        if len(fixed) < 2:
            raise InvalidValueError("a pattern must be more than a *")
    else:
        if "*" in pattern and not pattern.startswith("*@"):
            raise InvalidValueError("a * must be all before the @, as in *@example.com")
        if not all(fixed.rpartition("@")[1:]):
            raise InvalidValueError("a mailbox must have the form name@example.com")


def _check_uri(pattern: str, fixed: str) -> None:
    if ":" not in fixed:
        raise InvalidValueError("a URI must begin with a scheme, such as spiffe://")
    if not _is_plain_uri(pattern):
        raise InvalidValueError("a URI must have no query, no fragment, and neither . nor .. as a segment")
    if "*" in pattern and not pattern.endswith("/*"):
        raise InvalidValueError("in a URI a * must be the last segment, after a slash")
    # Otherwise the rule would match every trust domain, or every host.
    if "*" in pattern and fixed.count("/") < 3:
        raise InvalidValueError("a URI with a * must name its host or trust domain")


def _is_plain_uri(text: str) -> bool:
    """Returns whether every program reads the URI in the same way."""
    read = unquote(text)
    return not any(mark in read for mark in "?#\\") and not {".", ".."}.intersection(read.split("/"))


def names_of(certificate: x509.Certificate) -> tuple[Name, ...]:
    """Returns the names of a certificate; none if it has no such extension, or one that cannot be read.

    A name with a `*` of its own, as server certificates have, matches no rule, and neither does a URI that is not
    plain.
    """
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [
            *(("dns", each) for each in found.get_values_for_type(x509.DNSName)),
            *(("uri", each) for each in found.get_values_for_type(x509.UniformResourceIdentifier)),
            *(("email", each) for each in found.get_values_for_type(x509.RFC822Name)),
        ]
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    if len(names) > _MOST_NAMES:
        return ()
    return tuple(
        Name(cast("Kind", kind), _comparable(kind, text))
        for kind, text in names
        if "*" not in text and (kind != "uri" or _is_plain_uri(text))
    )


def _comparable(kind: str, text: str) -> str:
    if kind == "dns":
        return text.lower()
    if kind == "email":
        mailbox, at, host = text.rpartition("@")
        return f"{mailbox}{at}{host.lower()}" if at else text
    return text
