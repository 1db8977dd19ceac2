"""Rules of a config map or secret that do not depend on its namespace.

The proto file declares the rule for names of keys. Messages about secrets repeat no key or value of the caller, because
a caller may confuse keys and values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from pilothouse_server.config.model import ConfigMap, Values
from pilothouse_server.errors import FailedPrecondition, InvalidArgument, Violation, invalid

MOST_BYTES = 1 << 20
RESERVED_LABEL_DOMAIN = "pilothouse.dev"

_TYPE = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?")
_SERVICE_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"


def check_config_map(wanted: ConfigMap) -> None:
    """Raises InvalidArgument if a key is in both maps or the values are too large."""
    twice = sorted(wanted.data.keys() & wanted.binary_data.keys())
    if twice:
        raise invalid(
            "config_map.binary_data", f'the key "{twice[0]}" is in data, too', reason="DUPLICATE_KEY"
        )
    size = sum(len(text.encode()) for text in wanted.data.values())
    _check_size("config_map.data", size + sum(len(value) for value in wanted.binary_data.values()))
    check_labels("config_map.labels", wanted.labels)


def check_secret(type_: str, values: Values) -> None:
    """Raises InvalidArgument for an invalid type, a missing key that the type requires, or too large values."""
    if not _TYPE.fullmatch(type_):
        raise invalid("secret.type", "must be letters, digits, '-', '_', '.' and '/', such as Opaque")
    if type_ == _SERVICE_ACCOUNT_TOKEN:
        raise invalid(
            "secret.type",
            "the cluster makes tokens of service accounts itself; they cannot be created here",
            reason="UNSUPPORTED_TYPE",
        )
    check = _CHECKS.get(type_)
    problem = check(values) if check is not None else None
    if problem:
        raise _refusal(type_, problem, "MISSING_KEY", "required_keys")
    key = _DOCUMENTS.get(type_)
    if key is not None and not _is_json_object(values[key]):
        raise _refusal(type_, f"requires a JSON object as {key}", "MALFORMED_VALUE", "json_object")
    _check_size("secret.data", sum(len(value) for value in values.values()))


def _refusal(type_: str, problem: str, reason: str, rule: str) -> InvalidArgument:
    description = f"{type_} {problem}"
    return InvalidArgument(
        f"secret.data: {description}",
        reason=reason,
        metadata={"field": "secret.data", "type": type_},
        violations=(Violation("secret.data", rule, description),),
    )


def check_single_keys(
    paths: Collection[str], whole: Collection[str], setting: Collection[str], removing: Collection[str]
) -> None:
    """Raises InvalidArgument if single keys and all keys are to be changed, or if one key is to be set and removed.

    `whole`: the paths of a mask that name all values.
    """
    if (setting or removing) and set(whole) & set(paths):
        words = (
            f"contains {' or '.join(whole)}, which replaces all values: change single keys or all, not both"
        )
        raise invalid("update_mask", words, reason="INVALID_UPDATE_MASK")
    if set(setting) & set(removing):
        raise invalid("remove_keys", "must not contain a key that is also set", reason="DUPLICATE_KEY")


def check_removable(there: Collection[str], removing: Collection[str]) -> None:
    """Raises InvalidArgument if one of the keys to remove does not exist."""
    if set(removing) - set(there):
        raise invalid("remove_keys", "there is no such key to remove", reason="KEY_NOT_FOUND")


def merged(data: Mapping[str, bytes], string_data: Mapping[str, str]) -> Values:
    """Returns `data` together with `string_data`. Raises InvalidArgument if a key is in both."""
    if data.keys() & string_data.keys():
        raise invalid("secret.string_data", "a key is in data, too", reason="DUPLICATE_KEY")
    return dict(data) | {key: text.encode() for key, text in string_data.items()}


def check_labels(field: str, labels: Mapping[str, str]) -> None:
    """Raises InvalidArgument for labels of the platform's own domain."""
    for key in labels:
        prefix, slash, _ = key.partition("/")
        if slash and (prefix == RESERVED_LABEL_DOMAIN or prefix.endswith("." + RESERVED_LABEL_DOMAIN)):
            raise invalid(field, f'"{key}": labels of {RESERVED_LABEL_DOMAIN} are set by the platform')


def refuse_immutable(words: str, name: str) -> FailedPrecondition:
    """Returns the error for a change of an immutable config."""
    return FailedPrecondition(
        f'{words} "{name}" is immutable: its data never change; create another one, or delete it first',
        reason="IMMUTABLE",
    )


def in_use(words: str, name: str, containers: Sequence[str], volumes: Sequence[str]) -> FailedPrecondition:
    """Returns the error for the deletion of a config that is read."""
    users = [f'container "{each}"' for each in containers] + [f'volume "{each}"' for each in volumes]
    shown = ", ".join(users[:10]) + (f" and {len(users) - 10} more" if len(users) > 10 else "")
    return FailedPrecondition(
        f'{words} "{name}" is used by {shown}',
        reason="CONFIG_IN_USE",
        metadata={"containers": ",".join(containers[:50]), "volumes": ",".join(volumes[:50])},
    )


def _check_size(field: str, size: int) -> None:
    if size > MOST_BYTES:
        raise invalid(
            field,
            f"the values have {size} bytes in total; at most {MOST_BYTES} are allowed",
            reason="TOO_LARGE",
        )


def _all_of(*keys: str) -> Callable[[Values], str | None]:
    def check(values: Values) -> str | None:
        missing = [key for key in keys if key not in values]
        return f"requires the keys {' and '.join(missing)}" if len(missing) > 1 else _one_missing(missing)

    return check


def _one_missing(missing: list[str]) -> str | None:
    return f"requires the key {missing[0]}" if missing else None


def _not_empty(key: str) -> Callable[[Values], str | None]:
    return lambda values: None if values.get(key) else f"requires the key {key} with a value"


def _any_of(*keys: str) -> Callable[[Values], str | None]:
    return lambda values: None if values.keys() & set(keys) else f"requires the key {' or '.join(keys)}"


def _is_json_object(value: bytes) -> bool:
    try:
        return isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False


# Requirements of Kubernetes for each type.
_CHECKS: Mapping[str, Callable[[Values], str | None]] = {
    "kubernetes.io/tls": _all_of("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": _all_of(".dockerconfigjson"),
    "kubernetes.io/dockercfg": _all_of(".dockercfg"),
    "kubernetes.io/basic-auth": _any_of("username", "password"),
    "kubernetes.io/ssh-auth": _not_empty("ssh-privatekey"),
}
# Types whose value under this key is a JSON object.
_DOCUMENTS: Mapping[str, str] = {
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/dockercfg": ".dockercfg",
}
