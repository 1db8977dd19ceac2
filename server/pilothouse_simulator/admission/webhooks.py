"""What refuses a write beside the rules of its kind: admission webhooks, and Pod Security of the namespace.

Webhooks are what a test or a developer asks for in the fault plan: one that denies, or one that is itself away, which
the API server tells as an internal error of its own. `pod_security` is the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pilothouse_simulator.admission import pod_security
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.resources import ResourceType

if TYPE_CHECKING:
    from pilothouse_simulator.store.store import Store

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Webhook:
    """One that refuses what is created or changed of `resources` (plural names), with `message` and `code`.

    `operations`: which of CREATE, UPDATE and DELETE it is asked for, as its configuration says; a dry run is asked
    for, too.

    `fails`: it does not answer, and its configuration says that nothing may pass without it.
    """

    name: str
    resources: tuple[str, ...]
    message: str = "not allowed here"
    code: int = 403
    fails: bool = False
    operations: tuple[str, ...] = ("CREATE", "UPDATE")

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
    _ask_webhooks(store, resource, "CREATE" if old is None else "UPDATE")
    pod_security.check(store, resource, obj, old)


def check_deletion(store: Store, resource: ResourceType) -> None:
    """Refuses what may not be deleted. ApiError."""
    _ask_webhooks(store, resource, "DELETE")


def _ask_webhooks(store: Store, resource: ResourceType, operation: str) -> None:
    for webhook in store.webhooks:
        if resource.plural in webhook.resources and operation in webhook.operations:
            raise webhook.refusal()
