"""Validation of the security contexts of pods and of containers."""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.admission.validation_metadata import invalid_value, not_supported, required
from pilothouse_simulator.values.api_errors import ErrorCause

JsonObject = dict[str, Any]

_LARGEST_ID = 2_147_483_647
_ID_RANGE = f"must be between 0 and {_LARGEST_ID}, inclusive"
_SECCOMP_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")
_FS_GROUP_POLICIES = ("Always", "OnRootMismatch")
# All fields of a container's context, with the names and the order that the real server's messages use.
_SHOWN = (
    "Capabilities", "Privileged", "SELinuxOptions", "WindowsOptions", "RunAsUser", "RunAsGroup", "RunAsNonRoot",
    "ReadOnlyRootFilesystem", "AllowPrivilegeEscalation", "ProcMount", "SeccompProfile", "AppArmorProfile",
)  # fmt: skip


def validate_security_context(context: JsonObject | None, field: str) -> list[ErrorCause]:
    """Checks the security context of a container."""
    if not context:
        return []
    causes = _validate_ids(context, ("runAsUser", "runAsGroup"), field)
    causes += _validate_seccomp(context.get("seccompProfile"), f"{field}.seccompProfile")
    if context.get("allowPrivilegeEscalation") is False:
        added = (context.get("capabilities") or {}).get("add") or []
        agreeing = "cannot set `allowPrivilegeEscalation` to false and"
        if context.get("privileged"):
            causes.append(invalid_value(field, _in_go_order(context), f"{agreeing} `privileged` to true"))
        if "CAP_SYS_ADMIN" in added:
            message = f"{agreeing} `capabilities.Add` CAP_SYS_ADMIN"
            causes.append(invalid_value(field, _in_go_order(context), message))
    return causes


def validate_pod_security_context(context: JsonObject | None, field: str) -> list[ErrorCause]:
    """Checks the security context of a pod, which its containers share."""
    if not context:
        return []
    causes = _validate_ids(context, ("fsGroup", "runAsUser", "runAsGroup"), field)
    causes += [
        invalid_value(f"{field}.supplementalGroups[{index}]", group, _ID_RANGE)
        for index, group in enumerate(context.get("supplementalGroups") or [])
        if not 0 <= group <= _LARGEST_ID
    ]
    policy = context.get("fsGroupChangePolicy")
    if policy is not None and policy not in _FS_GROUP_POLICIES:
        causes.append(not_supported(f"{field}.fsGroupChangePolicy", policy, _FS_GROUP_POLICIES))
    return causes + _validate_seccomp(context.get("seccompProfile"), f"{field}.seccompProfile")


def _validate_ids(context: JsonObject, names: tuple[str, ...], field: str) -> list[ErrorCause]:
    return [
        invalid_value(f"{field}.{name}", context[name], _ID_RANGE)
        for name in names
        if context.get(name) is not None and not 0 <= context[name] <= _LARGEST_ID
    ]


def _validate_seccomp(profile: JsonObject | None, field: str) -> list[ErrorCause]:
    if profile is None:
        return []
    causes: list[ErrorCause] = []
    kind, path = profile.get("type", ""), profile.get("localhostProfile")
    if not kind:
        causes.append(required(f"{field}.type", "type is required when seccompProfile is set"))
    elif kind not in _SECCOMP_TYPES:
        causes.append(not_supported(f"{field}.type", kind, _SECCOMP_TYPES))
    field = f"{field}.localhostProfile"
    if kind != "Localhost":
        if path is not None:
            shown = {"Type": kind, "LocalhostProfile": path}
            causes.append(invalid_value(field, shown, "can only be set when seccomp type is Localhost"))
    elif path is None:
        causes.append(required(field, "must be set when seccomp type is Localhost"))
    else:
        if path.startswith("/"):
            causes.append(invalid_value(field, path, "must be a relative path"))
        if ".." in path.split("/"):
            causes.append(invalid_value(field, path, "must not contain '..'"))
    return causes


def _in_go_order(context: JsonObject) -> JsonObject:
    given = {name.lower(): value for name, value in context.items()}
    return {name: given.get(name.lower()) for name in _SHOWN}
