"""Values whose names read like a credential's: variables of programs, and options in their arguments.

Who writes `DB_PASSWORD` as a literal may be shown it, because it is not declared a secret, and what reads it would
write back whatever stood in its place. Records of calls are kept for years and read by others: there it is masked.
`pilothouse apply` warns by the same names (`pilothouse_client.apply.literals`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

REDACTED: Final = "[redacted]"

# In the lower case, parts joined by "_": words that mean it only by themselves, and those that do in any word.
_ALONE = re.compile(
    r"(?:^|_)(?:(?:pass|pwd|key|authorization|cookie|jwt|bearer|otp|dsn)s?(?:$|_)|(?:auth|pin|salt)s?$)"
)
_ANYWHERE = re.compile(
    r"passw(?:or)?d|passphrase|passcode|secret|token|credential|api_?key|access_?key|private_?key"
    r"|connection_?str(?:ing)?"
)
_PARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
# What names a value in any text, from the beginning of a word: a header that holds several words; NAME=, "NAME": and
# NAME: with a blank behind; and --NAME as a shell is given it.
_NAME = re.compile(
    r"""(?<![\w.\-])(?:(?P<header>[\w\-]*(?i:authorization|cookie)):\s{0,8}"""
    r"""|(?P<name>[\w.\-]+)(?:["']?\s{0,8}=\s{0,8}|["']\s{0,8}:\s{0,8}|:\s{1,8})"""
    r"""|(?P<option>--?[A-Za-z][\w.\-]*)\s{1,8}(?!-))"""
)
# It goes up to a blank, but for what is quoted and for the word before it that says how it is meant.
_VALUE = re.compile(
    r"""(?i:(?:bearer|basic|digest|negotiate|token|apikey)\s{1,8})?(?:"[^"]*"?|'[^']*'?|[^\s"'])+"""
)
# That of a header goes to the end of the line, or of what is quoted.
_HEADER_VALUE = {quote: re.compile(rf"[^\n{quote}]+") for quote in ('"', "'", "")}
_WHOLE = re.compile(r".+", re.DOTALL)
# The password in the user information of a URL, whatever holds it; a variable that is referred to is none.
_URL_PASSWORD = re.compile(r"""(://[^\s/?#:@"']*:)(?!\$\([\w.\-]+\)@)[^\s/?#"']+@""")
# `-u NAME:PASSWORD`, as a text or as two arguments, as curl and others take it; it goes as far as the value does.
_USER_OPTION = re.compile(r"--?(?:u|U|user|proxy-user)")
_USER_PASSWORD = re.compile(
    r"""((?<![\w.\-])--?(?:u|U|user|proxy-user)(?:=|\s{1,8})["']?[^\s:"'=]{0,256}:)(?!//)[^\s"']+"""
)
_USER_ALONE = re.compile(r"((?:--(?:user|proxy-user)=)?[^\s:]{0,256}:)(?!//).+", re.DOTALL)
# `-uNAME:PASSWORD`, without a blank, the same: within a text, and as an argument of its own.
_GLUED = r"""-[uU][^\s:"'=\-][^\s:"'=]{0,255}:(?!//|$)"""
_USER_GLUED = re.compile(rf"""((?<![\w.\-]){_GLUED})[^\s"']+""")
_USER_GLUED_ALONE = re.compile(_GLUED)
_BARE_OPTION = re.compile(r"--?[A-Za-z][\w.\-]*")


@lru_cache(maxsize=1024)
def reads_like_a_credential(name: str) -> bool:
    """Returns whether what has this name is likely a password, a token, a key or the like."""
    parts = "_".join(part for part in _PARTS.split(name) if part).lower()
    return _ALONE.search(parts) is not None or _ANYWHERE.search(parts) is not None


def without_url_passwords(text: str) -> str:
    """Returns a text without the passwords in the URLs that it holds."""
    return _URL_PASSWORD.sub(rf"\1{REDACTED}@", text) if "://" in text else text


def masked_argument(text: str, before: str = "") -> str:
    """Returns an argument without the values of credentials in it; `before` is the argument that stands before it."""
    text = without_url_passwords(text)
    if _USER_OPTION.fullmatch(before) or text.startswith(("--user=", "--proxy-user=")):
        text = _USER_ALONE.sub(rf"\1{REDACTED}", text, count=1) if _USER_ALONE.match(text) else text
    elif glued := _USER_GLUED_ALONE.match(text):
        text = glued[0] + REDACTED
    elif "-u" in text or "-U" in text or "-user" in text:
        text = _USER_GLUED.sub(rf"\1{REDACTED}", _USER_PASSWORD.sub(rf"\1{REDACTED}", text))
    if (
        before
        and not text.startswith("-")
        and _BARE_OPTION.fullmatch(before)
        and reads_like_a_credential(before)
    ):
        return REDACTED
    masked, end, position = [], 0, 0
    while (found := _NAME.search(text, position)) is not None:
        position = found.end()
        name = found["header"] or found["name"] or found["option"]
        if reads_like_a_credential(name) and (value := _value(text, found).match(text, position)):
            masked += [text[end:position], REDACTED]
            end = position = value.end()
    return "".join((*masked, text[end:]))


def _value(text: str, found: re.Match[str]) -> re.Pattern[str]:
    """Returns what the value is like behind a name that was found."""
    if found["header"]:
        before = text[: found.start()][-1:]
        return _HEADER_VALUE[before if before in ('"', "'") else ""]
    # No shell has divided `--password=two words`, which is one argument.
    return _WHOLE if found["name"] and found.start() == 0 and text.startswith("-") else _VALUE
