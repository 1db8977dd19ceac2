"""Values whose names read like a credential's: variables of programs, and options in their arguments.

A caller who writes `DB_PASSWORD` as a literal may read it: it is not declared a secret, and a client that
reads a masked value would write the mask back in its place. But audit records are stored for years and read by
others, so they mask it. `pilothouse apply` warns by the same names (`pilothouse_manifests.translator.literals`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

REDACTED: Final = "[redacted]"

# In lower case, parts joined by "_": words that suggest a credential only as a whole part, and words that do anywhere.
_ALONE = re.compile(
    r"(?:^|_)(?:(?:pass|pwd|key|authorization|cookie|jwt|bearer|otp|dsn)s?(?:$|_)|(?:auth|pin|salt)s?$)"
)
_ANYWHERE = re.compile(
    r"passw(?:or)?d|passphrase|passcode|secret|token|credential|api_?key|access_?key|private_?key"
    r"|connection_?str(?:ing)?"
)
_PARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
# The names of values in any text, from the beginning of a word: a header whose value has several words; NAME=,
# "NAME": and NAME: followed by a blank; and --NAME as a shell receives it.
_NAME = re.compile(
    r"""(?<![\w.\-])(?:(?P<header>[\w\-]*(?i:authorization|cookie)):\s{0,8}"""
    r"""|(?P<name>[\w.\-]+)(?:["']?\s{0,8}=\s{0,8}|["']\s{0,8}:\s{0,8}|:\s{1,8})"""
    r"""|(?P<option>--?[A-Za-z][\w.\-]*)\s{1,8}(?!-))"""
)
# A value ends at a blank, unless it is quoted or follows a word for its kind.
_VALUE = re.compile(
    r"""(?i:(?:bearer|basic|digest|negotiate|token|apikey)\s{1,8})?(?:"[^"]*"?|'[^']*'?|[^\s"'])+"""
)
# The value of a header ends at the end of the line, or of the quoted text.
_HEADER_VALUE = {quote: re.compile(rf"[^\n{quote}]+") for quote in ('"', "'", "")}
_WHOLE = re.compile(r".+", re.DOTALL)
# The password in the user information of a URL, wherever the URL is; a reference to a variable is not masked.
_URL_PASSWORD = re.compile(r"""(://[^\s/?#:@"']*:)(?!\$\([\w.\-]+\)@)[^\s/?#"']+@""")
# `-u NAME:PASSWORD`, as a text or as two arguments, as curl and others accept it; it ends where the value ends.
_USER_OPTION = re.compile(r"--?(?:u|U|user|proxy-user)")
_USER_PASSWORD = re.compile(
    r"""((?<![\w.\-])--?(?:u|U|user|proxy-user)(?:=|\s{1,8})["']?[^\s:"'=]{0,256}:)(?!//)[^\s"']+"""
)
_USER_ALONE = re.compile(r"((?:--(?:user|proxy-user)=)?[^\s:]{0,256}:)(?!//).+", re.DOTALL)
# The same without a blank, `-uNAME:PASSWORD`: within a text, and as an argument of its own.
_GLUED = r"""-[uU][^\s:"'=\-][^\s:"'=]{0,255}:(?!//|$)"""
_USER_GLUED = re.compile(rf"""((?<![\w.\-]){_GLUED})[^\s"']+""")
_USER_GLUED_ALONE = re.compile(_GLUED)
_BARE_OPTION = re.compile(r"--?[A-Za-z][\w.\-]*")
# The @ before a host. A name and a password may precede it without a scheme, as in references to images.
_AT_HOST = re.compile(r"@(?=[\w.\-]+(?::\d{1,5})?/)")
_BEFORE_NAME: Final = " \t\r\n\"'"
# Programs that accept a password as `-pPASSWORD`: by their names, and in a command line.
_TAKES_P = r"(?:mysql\w*|mariadb(?:-\w+)*|mycli|mydumper|myloader|sshpass|mongo\w*)"
_TAKES_P_PROGRAM = re.compile(rf"(?:.*/)?{_TAKES_P}(?:\.exe)?")
_TAKES_P_LINE = re.compile(rf"(?<![\w\-]){_TAKES_P}(?![\w\-])[^|;&\n]*")
_P_WITHIN = re.compile(r"""(?<=\s)(?:"-p[^"]+"?|'-p[^']+'?|-p(?:"[^"]*"?|'[^']*'?|[^\s"'])+)""")
# If the program is not known, these are more likely options of other programs, or ports.
_OTHER_P = re.compile(r"-p(?:[\d.:/\-]*|[a-z\-]+=.*)", re.DOTALL)
_P_WORD = re.compile(
    r"-p(?:ackage|age|arallel|arams|arent|artition|ass|assive|aths?|eers?|erm|id|idfile|ing|lugins?|olicy|oll|ool|orts?"
    r"|prof|refix|retty|rint[0f]?|riority|rivate|rocess|rocesses|roduction|rofile|rogress|roject|rotocol|rovider|roxy"
    r"|rune|ublic|ull|ush)"
)


@lru_cache(maxsize=1024)
def reads_like_a_credential(name: str) -> bool:
    """Returns whether the name suggests a password, a token, a key or the like."""
    parts = "_".join(part for part in _PARTS.split(name) if part).lower()
    return _ALONE.search(parts) is not None or _ANYWHERE.search(parts) is not None


def without_url_passwords(text: str) -> str:
    """Returns a text without the passwords in its URLs and in its references to images."""
    if "@" not in text:
        return text
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1{REDACTED}@", text)
    return _without_host_passwords(text)


def _without_host_passwords(text: str) -> str:
    """Masks `NAME:PASSWORD@HOST/`, in time that grows with the text: it looks back once from each @."""
    masked, end, looked_at = [], 0, 0
    for found in _AT_HOST.finditer(text):
        at = found.start()
        before = max(text.rfind(mark, looked_at, at) for mark in _BEFORE_NAME)
        colon = text.find(":", before + 1, at)
        # A text that begins before the previous @, or contains a slash, is something else.
        is_one = before >= 0 or looked_at == 0
        if is_one and before + 1 < colon < at - 1 and "/" not in text[before + 1 : at]:
            masked += [text[end : colon + 1], REDACTED]
            end = at
        looked_at = at + 1
    return "".join((*masked, text[end:]))


def takes_p(argument: str) -> bool:
    """Returns whether an argument names a program that takes a password as `-pPASSWORD`."""
    return _TAKES_P_PROGRAM.fullmatch(argument) is not None


def without_p(text: str, *, is_known: bool, continues: bool) -> str:
    """Returns an argument without the password of `-pPASSWORD`.

    `is_known`: a program that accepts one precedes it. `continues`: the program is named elsewhere.
    """
    if not text.startswith("-p") or len(text) == 2:
        return text
    is_other = _OTHER_P.fullmatch(text) or (
        _P_WORD.fullmatch(text) if continues else text[1:].isalpha() and text.islower()
    )
    return f"-p{REDACTED}" if is_known or not is_other else text


def _masked_p(found: re.Match[str]) -> str:
    quote = "" if found[0].startswith("-") else found[0][0]
    return f"{quote}-p{REDACTED}{quote}"


def masked_argument(text: str, before: str = "") -> str:
    """Returns an argument without the values of credentials in it; `before` is the preceding argument."""
    text = without_url_passwords(text)
    if "-p" in text:
        text = _TAKES_P_LINE.sub(lambda line: _P_WITHIN.sub(_masked_p, line[0]), text)
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
    """Returns the pattern of the value that follows a found name."""
    if found["header"]:
        before = text[: found.start()][-1:]
        return _HEADER_VALUE[before if before in ('"', "'") else ""]
    # No shell has split `--password=two words`, so it is one argument.
    return _WHOLE if found["name"] and found.start() == 0 and text.startswith("-") else _VALUE
