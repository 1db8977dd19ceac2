"""The effect of leaving out a part of a manifest.

The weight follows from the path of a field, or from the kind of a document. Anything that is not listed counts as a
change of the application's behaviour: an unknown part is never assumed to be harmless.
"""

from __future__ import annotations

import enum
import re


class ProblemWeight(enum.IntEnum):
    """The effect of leaving something out, from the least to the greatest."""

    HARMLESS = 1
    """The application is the same without it."""
    BEHAVIOUR = 2
    """The application does something else, or less."""
    SECURITY = 3
    """The application, or what may reach it, is less restricted, or a guarded field is missing."""

    @property
    def word(self) -> str:
        """The word for the command line and for messages."""
        return self.name.lower()


# Keys of guarded fields, and of fields that restrict a pod or its traffic. All keys of a path are compared: a value
# within `securityContext` has the weight of `securityContext`.
_SECURITY_KEYS = frozenset(
    {
        "allowedTopologies",
        "appArmorProfile",
        "automountServiceAccountToken",
        "capabilities",
        "defaultMode",
        "hostIPC",
        "hostNetwork",
        "hostPID",
        "hostPath",
        "hostPort",
        "hostUsers",
        "immutable",
        "loadBalancerSourceRanges",
        "mode",
        "nodeName",
        "priorityClassName",
        "procMount",
        "readOnly",
        "recursiveReadOnly",
        "runtimeClassName",
        "schedulerName",
        "seLinuxOptions",
        "securityContext",
        "supplementalGroupsPolicy",
        "sysctls",
        "windowsOptions",
    }
)
_HARMLESS_PATHS = frozenset({"spec.template.metadata.name", "spec.template.metadata.generateName"})
# API groups of which all kinds restrict traffic or rights.
_SECURITY_GROUPS = ("admissionregistration.k8s.io", "cilium.io", "kyverno.io", "policies.kubewarden.io")
_SECURITY_KINDS = frozenset(
    {
        "AuthorizationPolicy",
        "LimitRange",
        "NetworkPolicy",
        "PeerAuthentication",
        "PodSecurityPolicy",
        "RequestAuthentication",
        "ResourceQuota",
    }
)
# Kinds that only describe something: nothing on a cluster acts on them.
_HARMLESS_KINDS = frozenset({("v1", "Event"), ("app.k8s.io/v1beta1", "Application")})
_HARMLESS_HOOKS = frozenset({"test", "test-success", "test-failure"})
_KEY = re.compile(r"[^.\[\]]+")


def weight_of_field(path: str) -> ProblemWeight:
    """Returns the weight of a field that is left out, by its path."""
    if path in _HARMLESS_PATHS:
        return ProblemWeight.HARMLESS
    if not _SECURITY_KEYS.isdisjoint(_KEY.findall(path)):
        return ProblemWeight.SECURITY
    return ProblemWeight.BEHAVIOUR


def weight_of_kind(version: str, kind: str) -> ProblemWeight:
    """Returns the weight of a document of a kind that has no place on the platform."""
    if (version, kind) in _HARMLESS_KINDS:
        return ProblemWeight.HARMLESS
    if kind in _SECURITY_KINDS or version.partition("/")[0].endswith(_SECURITY_GROUPS):
        return ProblemWeight.SECURITY
    return ProblemWeight.BEHAVIOUR


def weight_of_hook(hooks: str) -> ProblemWeight:
    """Returns the weight of a Helm hook, by the value of its annotation: Helm runs tests on demand only."""
    named = {each.strip() for each in hooks.split(",")}
    return ProblemWeight.HARMLESS if named <= _HARMLESS_HOOKS else ProblemWeight.BEHAVIOUR
