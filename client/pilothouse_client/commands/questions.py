"""Questions about permissions: `pilothouse can-i`, `why` and `who-can`.

The question names a permission (`container.delete`), or an action: `delete container/web`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pilothouse.identity.v1 import permissions_pb2 as pb
from pilothouse_client.commands import called_methods, verbs
from pilothouse_client.commands.called_methods import CalledMethod
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import (
    AllNamespaces,
    Filter,
    Format,
    Limit,
    Namespace,
    OrderBy,
    Output,
    namespace_or_all,
    namespace_or_default,
)
from pilothouse_client.commands.output import OutputColumn, show, show_all
from pilothouse_client.commands.terminal import say, say_prose
from pilothouse_client.commands.values import enum_label, moment

_NO = 1
_WRONG_COMMAND_LINE = 2
_Verb = Annotated[
    str, verbs.Argument(metavar="VERB|PERMISSION", help="Such as delete, or a permission: container.delete.")
]
_Thing = Annotated[
    str, verbs.Argument(metavar="[NOUN[/NAME]]", help="Such as container/web; not with a permission.")
]
_User = Annotated[str, verbs.Option("--user", help="Ask about another user.")]
_CONSIDERED: list[OutputColumn[Any]] = [
    OutputColumn("ROLE", lambda grant: grant.role),
    OutputColumn("NAMESPACE", lambda grant: grant.namespace or "*"),
    OutputColumn("EXPIRES", lambda grant: moment(grant.expire_time), whole=True),
    OutputColumn("WHY NOT", lambda grant: enum_label(grant, "denial").lower().replace("_", " ")),
]
_PRINCIPALS: list[OutputColumn[Any]] = [
    OutputColumn("USERNAME", lambda principal: principal.username),
    OutputColumn("ROLE", lambda principal: principal.role),
    OutputColumn("NAMESPACE", lambda principal: principal.namespace or "*"),
    OutputColumn("EXPIRES", lambda principal: moment(principal.expire_time), whole=True),
    OutputColumn("KEYS", lambda principal: ",".join(principal.api_keys)),
]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A permission, or the method that a verb and a noun name; `name` is the resource's name, empty if not given."""

    permission: str
    method: CalledMethod | None = None
    name: str = ""


def can_i(
    verb: _Verb,
    thing: _Thing = "",
    namespace: Namespace = "",
    everywhere: AllNamespaces = False,
    user: _User = "",
) -> None:
    """Print whether you may do something: yes (exit code 0) or no (1).

    It checks the namespace of -n, else of the context; with -A, or without either, all namespaces.
    """
    asked = _asked(verb, thing)
    place = _place(asked, namespace, everywhere)
    with connect() as client:
        if asked.method is None:
            allowed = client.identity.check_permission(
                permission=asked.permission, namespace=place, username=user
            )
        else:
            allowed = client.identity.explain_permission(
                method=asked.method.full_name, namespace=place, username=user
            ).allowed
    say("yes" if allowed else "no")
    raise verbs.Exit(0 if allowed else _NO)


def why(
    verb: _Verb,
    thing: _Thing = "",
    namespace: Namespace = "",
    everywhere: AllNamespaces = False,
    user: _User = "",
    output: Output = Format.TABLE,
) -> None:
    """Print the grant that permits something, or where the permission ends and which users can grant it. Exits with 0
    if you may do it, else 1.

    `pilothouse why delete container/web`, or with a permission: `pilothouse why container.delete`.
    """
    asked = _asked(verb, thing)
    place = _place(asked, namespace, everywhere)
    with connect() as client:
        answer = client.identity.explain_permission(
            permission="" if asked.method else asked.permission,
            method=asked.method.full_name if asked.method else "",
            namespace=place,
            username=user,
        )
    if output.is_table:
        _print(answer)
    else:
        show(answer, [], output)
    raise verbs.Exit(0 if answer.allowed else _NO)


def who_can(
    verb: _Verb,
    thing: _Thing = "",
    namespace: Namespace = "",
    everywhere: AllNamespaces = False,
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = 0,
    output: Output = Format.TABLE,
) -> None:
    """List the users who may do something, by grant. Filter by username, role, namespace, service_account.

    `pilothouse who-can delete containers`, or with a permission: `pilothouse who-can container.delete`.
    """
    asked = _asked(verb, thing)
    if not asked.permission:
        raise CommandError(f"{verb} {thing} needs no permission: every user may", _WRONG_COMMAND_LINE)
    by_name = asked.method is not None and asked.method.by_name and asked.name
    place = asked.name if by_name else namespace_or_all(namespace, everywhere)
    partial = False
    with connect() as client:
        pager = client.identity.list_principals(
            permission=asked.permission, namespace=place, filter=filter_, order_by=order_by
        )

        def principals() -> Any:
            nonlocal partial
            for page in pager.pages():
                partial = page.partial
                yield from page.principals

        show_all(principals(), _PRINCIPALS, output, limit)
    if partial and output.is_table:
        say("others may have the permission by grants over all namespaces, which you may not read", err=True)


def _asked(verb: str, thing: str) -> _Asked:
    noun, _, name = thing.partition("/")
    if not noun:
        if "." not in verb and verb != "*":
            raise CommandError(
                f"name what to {verb}, as in: {verb} container/web; or a permission: container.{verb}",
                _WRONG_COMMAND_LINE,
            )
        return _Asked(verb)
    if "." in verb:
        raise CommandError(f"{verb} is a permission: give no noun with it", _WRONG_COMMAND_LINE)
    method = called_methods.find(verb, noun)
    return _Asked(method.permission, method, name)


def _place(asked: _Asked, namespace: str, everywhere: bool) -> str:
    """Returns the namespace of the question.

    Empty for every namespace, and for resources outside namespaces."""
    method = asked.method
    if method is None:
        return namespace_or_all(namespace, everywhere)
    if not method.in_namespace:
        return ""
    if method.by_name and asked.name:
        if namespace and namespace != asked.name:
            raise CommandError(f"-n {namespace} differs from the namespace {asked.name}", _WRONG_COMMAND_LINE)
        return asked.name
    if method.needs_namespace:
        if everywhere:
            raise CommandError(
                "-A needs a permission: name it in place of verb and noun", _WRONG_COMMAND_LINE
            )
        return namespace_or_default(namespace)
    return namespace_or_all(namespace, everywhere)


def _print(answer: pb.ExplainPermissionResponse) -> None:
    say_prose(f"{'yes' if answer.allowed else 'no'}: {answer.summary}", err=False)
    if answer.key_refuses and answer.owner_refuses:
        say("neither the key nor its owner permits it")
    for giver in answer.givers:
        roles = f", role {' or '.join(giver.roles)}" if giver.roles else ""
        say(f"ask {giver.username}{roles}")
    if len(answer.grants) > 1:
        show_all(answer.grants, _CONSIDERED, Format.TABLE)
