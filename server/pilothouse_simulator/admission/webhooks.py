"""Admission webhooks: refusals of writes in addition to the rules of the kind.

A test or a developer sets them in the fault plan: one that denies, or one that is itself away, which the API server
reports as an internal error of its own.
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

    `operations`: the operations among CREATE, UPDATE and DELETE that it is called for, as its configuration says; it
    is called for a dry run, too.

    `warns`: it lets writes pass, and the answer has `message` as a warning.

    `fails`: it does not answer, and its configuration says that nothing may pass without it.
    """

    name: str
    resources: tuple[str, ...]
    message: str = "not allowed here"
    code: int = 403
    fails: bool = False
    warns: bool = False
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


def call(webhooks: Sequence[Webhook], resource: ResourceType, operation: str) -> None:
    """Raises ApiError where one of them refuses; `operation` is CREATE, UPDATE or DELETE."""
    for webhook in webhooks:
        if resource.plural in webhook.resources and operation in webhook.operations and not webhook.warns:
            raise webhook.refusal()


def warnings(webhooks: Sequence[Webhook], resource: ResourceType) -> list[str]:
    """The warnings of those that let a write pass."""
    return [each.message for each in webhooks if each.warns and resource.plural in each.resources]
