"""Admission webhooks: they refuse writes in addition to the rules of the kind.

A test or a developer sets them in the fault plan. A webhook denies writes, or warns, or is itself unreachable; the API
server reports an unreachable webhook as an internal error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.resources import ResourceType

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Webhook:
    """A webhook that refuses creations and changes of `resources` (plural names), with `message` and `code`.

    `operations`: the operations among CREATE, UPDATE and DELETE for which the webhook is called, also in a dry run.

    `warns`: the webhook allows writes, and the response has `message` as a warning.

    `fails`: the webhook does not respond, and its failure policy is to refuse the write.
    """

    name: str
    resources: tuple[str, ...]
    message: str = "not allowed here"
    code: int = 403
    fails: bool = False
    warns: bool = False
    operations: tuple[str, ...] = ("CREATE", "UPDATE")

    def refusal(self) -> api_errors.ApiError:
        """Returns the API server's refusal for this webhook."""
        if self.fails:
            message = (
                f'Internal error occurred: failed calling webhook "{self.name}": failed to call webhook: '
                f'Post "https://webhook.policy.svc:443/validate?timeout=10s": context deadline exceeded'
            )
            return api_errors.failure(500, message, "InternalError", {"causes": [{"message": message[25:]}]})
        words = f'admission webhook "{self.name}" denied the request: {self.message}'
        return api_errors.failure(self.code, words, "Forbidden" if self.code == 403 else None)


def call(webhooks: Sequence[Webhook], resource: ResourceType, operation: str) -> None:
    """Raises ApiError if a webhook refuses the write; `operation` is CREATE, UPDATE or DELETE."""
    for webhook in webhooks:
        if resource.plural in webhook.resources and operation in webhook.operations and not webhook.warns:
            raise webhook.refusal()


def warnings(webhooks: Sequence[Webhook], resource: ResourceType) -> list[str]:
    """Returns the warnings of the webhooks that allow a write with a warning."""
    return [each.message for each in webhooks if each.warns and resource.plural in each.resources]
