"""The calls of IdentityService about permissions: request → operation → response."""

from __future__ import annotations

from dataclasses import dataclass

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import permissions_pb2 as messages
from pilothouse_server.authorization import denials
from pilothouse_server.authorization.access import Grant, Principal
from pilothouse_server.authorization.denials import Denial, PermissionFinding, Question
from pilothouse_server.errors import PermissionDenied, invalid
from pilothouse_server.identity.access.operations import explanations, grants, permissions
from pilothouse_server.identity.access.operations.grants import READING_GRANTS, Simulated
from pilothouse_server.identity.access.permission_words import PermissionWords
from pilothouse_server.identity.accounts.operations import users
from pilothouse_server.identity.model import PrincipalGrant, User
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.converter import AnswerConverter, Differences
from pilothouse_server.rpc.encoding import ListAnswer
from pilothouse_server.rpc.interceptors.authorization import authorize, check_credential
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.store.unit_of_work import ReadTransaction

_PRINCIPAL = AnswerConverter(
    PrincipalGrant,
    messages.HoldingPrincipal,
    Differences(
        names={"create_time": "assigned_at"}, struct_only=("user_id", "namespace_id", "account_namespace")
    ),
)
_PRINCIPALS = ListAnswer(messages.ListPrincipalsResponse, "principals")
_GRANTING = "GrantRole"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question, and the method that it is about; None if it is about a permission."""

    question: Question
    rule: Rule | None


class PermissionService:
    """Serves the questions about permissions; `words` are all existing permissions."""

    def __init__(self, words: PermissionWords, page_key: bytes) -> None:
        self._words = words
        self._page_key = page_key

    async def CheckPermission(
        self, request: pb.CheckPermissionRequest, call: Call
    ) -> pb.CheckPermissionResponse:
        """Returns whether the caller, or the named user, holds a permission."""
        async with call.read() as transaction:
            allowed = await permissions.check(
                transaction,
                call.caller,
                self._words,
                request.permission,
                request.namespace,
                request.username,
                users.locate,
            )
        return pb.CheckPermissionResponse(allowed=allowed)

    async def ExplainPermission(
        self, request: messages.ExplainPermissionRequest, call: Call
    ) -> messages.ExplainPermissionResponse:
        """Returns why the caller, or the named user, does or does not hold a permission."""
        asked = self._asked(request)
        call.describe(resource_name=asked.question.permission or request.method)
        async with call.read(snapshot=True) as transaction:
            other = await explanations.other_user(transaction, call.caller, request.username, users.locate)
            return await _answer(transaction, call.caller, asked, other)

    async def ExplainPermissions(
        self, request: messages.ExplainPermissionsRequest, call: Call
    ) -> messages.ExplainPermissionsResponse:
        """Returns the results of several questions, like `ExplainPermission`."""
        asked = [
            self._asked(question, f"questions[{number}].")
            for number, question in enumerate(request.questions)
        ]
        async with call.read(snapshot=True) as transaction:
            other = await explanations.other_user(transaction, call.caller, request.username, users.locate)
            found = [await _answer(transaction, call.caller, each, other) for each in asked]
        return messages.ExplainPermissionsResponse(explanations=found)

    async def ListPrincipals(self, request: messages.ListPrincipalsRequest, call: Call) -> bytes:
        """Lists the users who hold a permission."""
        self._words.check_one(request.permission, "permission")
        question = self._words.question(request.permission, request.namespace)
        page = wire.page_request(call, self._page_key, request.permission, request.namespace)
        async with call.read() as transaction:
            found, next_page, partial = await explanations.list_holders(
                transaction, call.caller, question, page
            )
        answer = await _PRINCIPALS.rendered(found, _PRINCIPAL.to_proto, next_page)
        return answer + messages.ListPrincipalsResponse(partial=partial).SerializeToString()

    async def SimulateGrant(
        self, request: messages.SimulateGrantRequest, call: Call
    ) -> messages.SimulateGrantResponse:
        """Returns the changes that a grant would make."""
        authorize(self._words.method(_GRANTING), call.caller, request.namespace)
        async with call.read(snapshot=True) as transaction:
            simulated = await grants.simulate(
                transaction,
                call.caller,
                request.username,
                request.role,
                request.namespace,
                wire.moment(request.expire_time) if request.HasField("expire_time") else None,
                self._words,
                users.locate,
            )
        return _simulated(simulated, request)

    def _asked(
        self, request: messages.ExplainPermissionRequest | messages.PermissionQuestion, within: str = ""
    ) -> _Asked:
        """Returns the question of a request, or of the part of a request at the path `within`.

        Raises InvalidArgument.
        """
        if bool(request.permission) == bool(request.method):
            raise invalid(
                f"{within}permission",
                "exactly one of permission and method must be given",
                reason="ONE_QUESTION",
            )
        if request.method:
            rule = self._words.method(request.method, f"{within}method")
            return _Asked(self._words.question_of(rule, request.namespace), rule)
        self._words.check_one(request.permission, f"{within}permission")
        return _Asked(self._words.question(request.permission, request.namespace), None)


async def _answer(
    transaction: ReadTransaction, caller: Principal, asked: _Asked, other: User | None
) -> messages.ExplainPermissionResponse:
    """Returns the explanation of one question, about the caller or another user."""
    rule = asked.rule
    if rule is not None and other is None:
        try:
            check_credential(rule, caller.credential)
        except PermissionDenied as refused:
            return _refused_by_credential(rule, refused)
    if rule is not None and not rule.needs_permission:
        return _open_to_everybody(rule)
    found = await explanations.explain_permission(transaction, caller, asked.question, other)
    details = other is None or caller.allows(READING_GRANTS)
    return _explained(found, "" if other is None else other.username, details=details)


def _open_to_everybody(rule: Rule) -> messages.ExplainPermissionResponse:
    who = "everybody" if rule.public else "every user"
    return messages.ExplainPermissionResponse(
        allowed=True, summary=f"{rule.name} needs no permission: {who} may call it"
    )


def _refused_by_credential(rule: Rule, refused: PermissionDenied) -> messages.ExplainPermissionResponse:
    return messages.ExplainPermissionResponse(
        permission=rule.permission,
        denial=messages.DENIAL_CREDENTIAL,
        summary=refused.message,
        key_refuses=True,
    )


def _explained(found: PermissionFinding, of: str, *, details: bool) -> messages.ExplainPermissionResponse:
    return messages.ExplainPermissionResponse(
        allowed=found.allowed,
        permission=found.question.permission,
        denial=_denial(found.denial),
        summary=denials.summary(found, of, details=details),
        grants=[_considered(each.grant, each.denial) for each in found.considered if details],
        givers=[messages.Giver(username=giver.username, roles=giver.roles) for giver in found.givers],
        key_refuses=found.key_refuses,
        owner_refuses=found.owner_refuses,
    )


def _denial(denial: Denial | None) -> messages.Denial.ValueType:
    return messages.Denial.Value(f"DENIAL_{denial or 'UNSPECIFIED'}")


def _considered(grant: Grant, denial: Denial | None) -> messages.ConsideredGrant:
    message = messages.ConsideredGrant(
        role=grant.role, namespace=grant.namespace or "", denial=_denial(denial)
    )
    if grant.expires_at is not None:
        message.expire_time.FromDatetime(grant.expires_at)
    return message


def _simulated(
    simulated: Simulated, request: messages.SimulateGrantRequest
) -> messages.SimulateGrantResponse:
    changes = simulated.changes
    gained = {word for change in changes for word in change.gained}
    extended = {word for change in changes for word in change.extended}
    shortened = {word for change in changes for word in change.shortened}
    said = [
        f"{verb} {len(words)} permission{'s' if len(words) != 1 else ''}"
        for verb, words in (("gives", gained), ("extends", extended), ("shortens", shortened))
        if words
    ]
    where = f'in namespace "{request.namespace}"' if request.namespace else "over all namespaces"
    what = ", ".join(said) or "changes nothing"
    return messages.SimulateGrantResponse(
        changes=[
            messages.GrantChange(
                namespace=change.namespace,
                gained=change.gained,
                extended=change.extended,
                shortened=change.shortened,
            )
            for change in changes
        ],
        partial=simulated.partial,
        granted_already=simulated.granted_already,
        summary=f'granting {request.username} role "{request.role}" {where} {what}',
    )
