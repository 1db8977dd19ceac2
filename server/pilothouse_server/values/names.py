"""The forms of names: each function checks a text, and returns the rule that it breaks, or None.

The grammars are those of Kubernetes, so that a cluster never refuses later what is accepted here. All are ASCII.
Unicode letters that look like others are refused with their names, and so are `..`, `/`, `%2f`, NUL and control
characters, because names become parts of Kubernetes API paths. Messages name a character by its code point, and never
repeat the value, which may be a secret in the wrong field.

User names are compared by `normalise_username`: NFKC, then case folding, so that an account has one login throttle
however its name is typed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

LONGEST_LABEL = 63
LONGEST_SUBDOMAIN = 253
LONGEST_EMAIL = 254
LONGEST_USERNAME = 50
# The prefix of service accounts' names.
SERVICE_ACCOUNT = "sa"
LONGEST_ANNOTATIONS = 256 * 1024

_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_PATH_SEGMENT = re.compile(r"[A-Za-z0-9._:@-]{1,253}")
_API_VERSION = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_ENVIRONMENT_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9](?:-?[a-z0-9]){0,14}")
_QUALIFIED_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,49}")
_EMAIL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+"
)
_PERMISSION = re.compile(r"\*|[a-z][a-z0-9_]*\.(?:\*|[a-z][a-z0-9_]*)")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Control characters, and invisible characters that change the direction of text or break lines.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_ENCODED = re.compile(r"%(?:2[ef]|5c|00)", re.IGNORECASE)


def unstorable_problem(text: str) -> str | None:
    """Checks for characters that no text column and no UTF-8 message can contain: NUL and lone surrogates."""
    # These checks scan a text of 1 MB in a fraction of a millisecond; the regular expression needs ten milliseconds.
    if "\0" not in text and (text.isascii() or _is_utf8(text)):
        return None
    found = _UNSTORABLE.search(text)
    return f"must not contain {_character(found[0])}" if found else None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_problem(text: str) -> str | None:
    """Checks for control characters, and for characters that hide or reorder others."""
    found = _UNPRINTABLE.search(text)
    return f"must not contain {_character(found[0])}" if found else None


def resource_name_problem(text: str) -> str | None:
    """Checks the minimum rule for a resource's name, for resources without a stricter form."""
    return _dangerous(text)


def dns_label_problem(text: str) -> str | None:
    """Checks an RFC 1123 label: lower-case letters, digits and `-`, at most 63."""
    if _DNS_LABEL.fullmatch(text):
        return None
    return _dangerous(text) or (
        "must be a DNS label: at most 63 lower-case letters, digits or -, beginning and ending with a letter or digit"
    )


def dns_subdomain_problem(text: str) -> str | None:
    """Checks an RFC 1123 subdomain: labels joined by `.`, at most 253 characters."""
    if len(text) <= LONGEST_SUBDOMAIN and _DNS_SUBDOMAIN.fullmatch(text):
        return None
    return _dangerous(text) or (
        "must be a DNS subdomain: at most 253 lower-case letters, digits, - or ., each part beginning and ending with"
        " a letter or digit"
    )


def environment_name_problem(text: str) -> str | None:
    """Checks the name of an environment variable: a C identifier, in which `.` and `-` are also allowed."""
    if _ENVIRONMENT_NAME.fullmatch(text) and text != "." and not text.startswith(".."):
        return None
    return _dangerous(text) or "must contain only letters, digits, _ - or ., and must not begin with a digit"


def port_name_problem(text: str) -> str | None:
    """Checks an IANA service name: at most 15 characters."""
    if len(text) <= 15 and _PORT_NAME.fullmatch(text):
        return None
    return _dangerous(text) or (
        "must be a port name: at most 15 lower-case letters, digits or single -, with at least one letter, beginning"
        " and ending with a letter or digit"
    )


def is_pod_port_name(text: str) -> bool:
    """Returns whether a pod's port may have this name; a Service's port may have any DNS label."""
    return bool(text) and port_name_problem(text) is None


def label_key_problem(text: str) -> str | None:
    """Checks a label's key: `[prefix/]name`."""
    prefix, slash, name = text.rpartition("/")
    if slash and (not prefix or len(prefix) > LONGEST_SUBDOMAIN or not _DNS_SUBDOMAIN.fullmatch(prefix)):
        return "the part before / must be a DNS subdomain of at most 253 characters"
    if _QUALIFIED_NAME.fullmatch(name):
        return None
    return (
        "must be [prefix/]name, the name at most 63 letters, digits, - _ or ., beginning and ending with a letter"
        " or digit"
    )


def label_value_problem(text: str) -> str | None:
    """Checks a label's value: empty, or like the name in a key."""
    if not text or _QUALIFIED_NAME.fullmatch(text):
        return None
    return (
        "must be empty or at most 63 letters, digits, - _ or ., beginning and ending with a letter or digit"
    )


def annotation_key_problem(text: str) -> str | None:
    """Checks an annotation's key: the rules of a label's key, but in any case."""
    return label_key_problem(text.lower() if text.isascii() else text)


def annotations_size_problem(annotations: Mapping[str, str]) -> str | None:
    """Checks the size of all keys and values together: at most 256 KiB, the limit of Kubernetes."""
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    return (
        f"keys and values must not be longer than {LONGEST_ANNOTATIONS} bytes together"
        if size > LONGEST_ANNOTATIONS
        else None
    )


def config_key_problem(text: str) -> str | None:
    """Checks a key of a config map or secret, which becomes a file name."""
    if _CONFIG_KEY.fullmatch(text) and text != "." and not text.startswith(".."):
        return None
    return (
        _dangerous(text) or "must be at most 253 letters, digits, - _ or ., not . and not beginning with .."
    )


def path_segment_problem(text: str) -> str | None:
    """Checks the name of a Kubernetes object of any kind; names of Roles may contain `:`."""
    if _PATH_SEGMENT.fullmatch(text) and text not in (".", ".."):
        return None
    return _dangerous(text) or "must be 1 to 253 letters, digits, - _ . : or @, not . or .."


def api_version_problem(text: str) -> str | None:
    """Checks group and version of a kind; the core group has no name."""
    group, slash, version = text.rpartition("/")
    if _API_VERSION.fullmatch(version) and not (slash and dns_subdomain_problem(group)):
        return None
    return _dangerous(text) or "must be <version> or <group>/<version>, such as v1 or networking.k8s.io/v1"


def kind_problem(text: str) -> str | None:
    """Checks the name of a Kubernetes kind."""
    if _KIND.fullmatch(text):
        return None
    return _dangerous(text) or "must be a letter, then letters and digits, at most 63, such as Ingress"


def username_problem(text: str) -> str | None:
    """Checks a user name for a new account."""
    if _USERNAME.fullmatch(text) and ".." not in text:
        return None
    return _dangerous(text) or (
        "must begin with a letter or digit, and have at most 50 letters, digits, . _ - or @"
    )


def principal_problem(text: str) -> str | None:
    """Checks a user name or a service account's: `sa:<namespace>:<name>` or `sa:<name>`, which no user can have."""
    kind, colon, rest = text.partition(":")
    if not colon:
        return username_problem(text)
    parts = rest.split(":")
    if (
        kind == SERVICE_ACCOUNT
        and len(text) <= LONGEST_USERNAME
        and len(parts) <= 2
        and all(map(_DNS_LABEL.fullmatch, parts))
    ):
        return None
    return _dangerous(text) or (
        f"must be a user name, or that of a service account: {SERVICE_ACCOUNT}:<namespace>:<name>, or "
        f"{SERVICE_ACCOUNT}:<name>, at most {LONGEST_USERNAME} characters"
    )


def is_service_account(username: str) -> bool:
    """Returns whether a user name is that of a service account."""
    return username.startswith(f"{SERVICE_ACCOUNT}:")


def service_account_username(namespace: str, name: str) -> str:
    """Returns the user name of a service account; `namespace` is '' for one of the platform."""
    return ":".join(filter(None, (SERVICE_ACCOUNT, namespace, name)))


def normalise_username(text: str) -> str:
    """Returns the form that identifies an account: NFKC, case folded, then NFKC again, as folding may undo it."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def normalise_email(text: str) -> str:
    """Returns the form that identifies an e-mail address."""
    return normalise_username(text.strip())


def email_problem(text: str) -> str | None:
    """Checks an e-mail address of the common form."""
    if len(text) <= LONGEST_EMAIL and text.find("@") <= 64 and _EMAIL.fullmatch(text):
        return None
    return "must be an e-mail address such as name@example.org: at most 64 characters before @, 254 in total"


def permission_problem(text: str) -> str | None:
    """Checks a permission in the form that roles have."""
    return (
        None if _PERMISSION.fullmatch(text) else "must be <noun>.<verb>, <noun>.* or *, such as container.get"
    )


def uuid_problem(text: str) -> str | None:
    """Checks a UUID with its dashes, in either case, as RFC 9562 requires readers to accept."""
    return None if _UUID.fullmatch(text) else "must be a UUID of hexadecimal digits and dashes"


def absolute_path_problem(text: str) -> str | None:
    """Checks an absolute path: without `..`, `:` or control characters."""
    if not text.startswith("/"):
        return "must be an absolute path: it must begin with /"
    if ":" in text:
        return "must not contain :"
    return _path_problem(text)


def relative_path_problem(text: str) -> str | None:
    """Checks a relative path: without `..` or control characters."""
    return (
        "must be a relative path: it must not begin with /" if text.startswith("/") else _path_problem(text)
    )


def _path_problem(text: str) -> str | None:
    return "must not contain .. as a part" if ".." in text.split("/") else text_problem(text)


def _dangerous(text: str) -> str | None:
    """Returns the rule that a name breaks if it is dangerous in a path or misleading to a reader; else None."""
    if found := _UNPRINTABLE.search(text):
        return f"must not contain {_character(found[0])}"
    if not text.isascii():
        return f"must be plain ASCII: {_character(next(c for c in text if not c.isascii()))} is not"
    if "/" in text or "\\" in text:
        return "must not contain / or \\"
    if ".." in text or text == ".":
        return "must not be . and must not contain .."
    if _ENCODED.search(text):
        return "must not contain percent-encoded characters such as %2f"
    return None


def _character(character: str) -> str:
    name = unicodedata.name(character, "")
    if not name:
        name = "a lone surrogate" if "\ud800" <= character <= "\udfff" else "a control or unnamed character"
    return f"U+{ord(character):04X} ({name})"
