"""What refuses a write beside the rules of its kind: admission webhooks, and Pod Security of the namespace.

Webhooks are what a test or a developer asks for in the fault plan: one that denies, or one that is itself away, which
the API server tells as an internal error of its own. Pod Security follows the label
`pod-security.kubernetes.io/enforce`; of its checks there are those that were recorded. It looks at pods only, so that
a Deployment is accepted and its ReplicaSet fails to create.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import api_errors
from .resources import NAMESPACES, PODS, ResourceType

if TYPE_CHECKING:
    from .store import Store

JsonObject = dict[str, Any]

ENFORCE = "pod-security.kubernetes.io/enforce"
_MUST = "must set securityContext"


@dataclass(frozen=True)
class Webhook:
    """One that refuses what is created or changed of `resources` (plural names), with `message` and `code`.

    `fails`: it does not answer, and its configuration says that nothing may pass without it.
    """

    name: str
    resources: tuple[str, ...]
    message: str = "not allowed here"
    code: int = 403
    fails: bool = False

    def refusal(self) -> api_errors.ApiError:
        """The API server's words for it."""
        if self.fails:
            message = (
                f'Internal error occurred: failed calling webhook "{self.name}": failed to call webhook: '
                f'Post "https://webhook.policy.svc:443/validate?timeout=10s": context deadline exceeded'
            )
            return api_errors.failure(500, message, "InternalError", {"causes": [{"message": message[25:]}]})
        words = f'admission webhook "{self.name}" denied the request: {self.message}'
        return api_errors.failure(self.code, words, "Forbidden" if self.code == 403 else None)


def check(store: Store, resource: ResourceType, obj: JsonObject, old: JsonObject | None) -> None:
    """Refuses what admission does not let pass. ApiError."""
    for webhook in store.webhooks:
        if resource.plural in webhook.resources:
            raise webhook.refusal()
    if resource is PODS and old is None:
        _check_pod_security(store, obj)


def _check_pod_security(store: Store, pod: JsonObject) -> None:
    metadata = pod["metadata"]
    namespace = store.get(NAMESPACES, None, str(metadata.get("namespace", ""))) or {"metadata": {}}
    level = (namespace["metadata"].get("labels") or {}).get(ENFORCE, "")
    problems = []
    if level in ("baseline", "restricted"):
        problems += _baseline(pod["spec"])
    if level == "restricted":
        problems += _restricted(pod["spec"])
    if problems:
        message = f'violates PodSecurity "{level}:latest": {", ".join(problems)}'
        raise api_errors.forbidden(PODS, str(metadata.get("name", "")), message)


def _baseline(spec: JsonObject) -> list[str]:
    problems = []
    if host := [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]:
        problems.append(f"host namespaces ({', '.join(f'{name}=true' for name in host)})")
    privileged = [name for name, context in _contexts(spec) if context.get("privileged")]
    if privileged:
        problems.append(f"privileged ({_named(privileged)} must not set securityContext.privileged=true)")
    return problems


def _restricted(spec: JsonObject) -> list[str]:
    contexts, pod = _contexts(spec), spec.get("securityContext") or {}
    escalating = [name for name, context in contexts if context.get("allowPrivilegeEscalation") is not False]
    capable = [
        name for name, context in contexts if "ALL" not in (context.get("capabilities") or {}).get("drop", [])
    ]
    root = [
        name for name, context in contexts if not context.get("runAsNonRoot", pod.get("runAsNonRoot", False))
    ]
    unconfined = [
        name for name, context in contexts if not context.get("seccompProfile", pod.get("seccompProfile"))
    ]
    problems = []
    if escalating:
        words = f"{_named(escalating)} {_MUST}.allowPrivilegeEscalation=false"
        problems.append(f"allowPrivilegeEscalation != false ({words})")
    if capable:
        problems.append(f'unrestricted capabilities ({_named(capable)} {_MUST}.capabilities.drop=["ALL"])')
    if root:
        problems.append(f"runAsNonRoot != true (pod or {_named(root)} {_MUST}.runAsNonRoot=true)")
    if unconfined:
        words = f'{_MUST}.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        problems.append(f"seccompProfile (pod or {_named(unconfined)} {words})")
    return problems


def _contexts(spec: JsonObject) -> list[tuple[str, JsonObject]]:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    return [(container["name"], container.get("securityContext") or {}) for container in containers]


def _named(containers: list[str]) -> str:
    return f"container{'s' if len(containers) > 1 else ''} " + ", ".join(f'"{name}"' for name in containers)
