"""`pilothouse apply --application`: the files become the desired state of one application, in one transaction.

The server translates, compares and writes. A trial comes first, so that every problem is shown with its file and line
before anything is changed, and the cluster's warnings are seen; nothing of the comparison is done here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import IO

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.container.v1 import container_pb2
from pilothouse_client.apply.documents import load
from pilothouse_client.apply.outcome import ApplyResult, Options, Say, refuse
from pilothouse_client.apply.rollout import wait
from pilothouse_client.apply.sent_documents import SentDocuments, subject_of
from pilothouse_client.client import Nouns
from pilothouse_client.transport import BlockingTransport
from pilothouse_manifests.translator.problems import InputProblem, Problems, counts, listed
from pilothouse_manifests.translator.weights import ProblemWeight

# So often documents are sent without what may be left out: a part may be refused only after another one.
_ROUNDS = 5
_PAGE_SIZE = 1000
WORDS = {
    pb.CHANGE_ACTION_CREATE: "created",
    pb.CHANGE_ACTION_UPDATE: "updated",
    pb.CHANGE_ACTION_UNCHANGED: "unchanged",
    pb.CHANGE_ACTION_PRUNE: "pruned",
    pb.CHANGE_ACTION_REPLACE: "replaced",
    pb.CHANGE_ACTION_RUN: "run again",
}


def apply_application(
    client: Nouns[BlockingTransport],
    options: Options,
    request: pb.ApplyApplicationRequest,
    *,
    say: Say,
    complain: Say,
    standard_input: IO[bytes] | None = None,
) -> ApplyResult:
    """Applies the sources as an application. `say` takes the changes, `complain` problems and warnings.

    `request`: the call, without its documents.

    Raises:
        PilothouseError: the server cannot be asked, or refuses the call as a whole.
    """
    problems = Problems()
    sent = SentDocuments(load(options.sources, problems, standard_input), problems)
    if not len(sent) and not problems.all and not request.prune:
        complain("nothing to apply: the input holds no document")
        return ApplyResult.REFUSED
    if problems.all:
        refuse(problems, None, complain)
        return ApplyResult.REFUSED
    trial, left_out = _tried(client, options, request, sent, problems)
    for warning in trial.warnings:
        words = f"{warning.path}: {warning.message}" if warning.path else warning.message
        complain(f"warning: {words}")
    if request.validate_only:
        _say_changes(trial.changes, say, " (dry run)", in_detail=True)
    if problems.refused(options.skip):
        refuse(problems, options.skip, complain)
        return ApplyResult.REFUSED
    for line in listed(left_out):
        complain(f"left out: {line}")
    done = trial
    if not request.validate_only:
        done = client.applications.apply.send(_with_documents(request, sent, validate_only=False))
        _say_changes(done.changes, say)
    running = True
    if options.wait and not request.validate_only:
        running = _wait(client, options, request.namespace, done.changes, say, complain)
    say(_summary(done, request, left_out))
    if not running:
        return ApplyResult.NOT_RUNNING
    return ApplyResult.LEFT_OUT if left_out else ApplyResult.DONE


def _tried(
    client: Nouns[BlockingTransport],
    options: Options,
    request: pb.ApplyApplicationRequest,
    sent: SentDocuments,
    problems: Problems,
) -> tuple[pb.ApplyApplicationResponse, tuple[InputProblem, ...]]:
    """Returns the trial of all that is not left out, and what is; problems of the trial are added."""
    left_out = Problems()
    for attempts_left in reversed(range(_ROUNDS)):
        trial = client.applications.apply.send(_with_documents(request, sent, validate_only=True))
        found = [(each, sent.problem_of(each)) for each in trial.problems]
        accepted = [(each, problem) for each, problem in found if _is_accepted(problem, options.skip)]
        if attempts_left and accepted and sent.leave_out([each for each, _ in accepted], problems):
            for _, problem in accepted:
                left_out.add(problem)
            continue
        for _, problem in found:
            problems.add(problem)
        if (more := trial.problem_count - len(trial.problems)) > 0:
            problems.add(InputProblem(problems.all[-1].place, "", "", f"and {more} more problems"))
        return trial, left_out.all
    raise AssertionError("the last attempt returns")


def _is_accepted(problem: InputProblem, skip: ProblemWeight | None) -> bool:
    return skip is not None and problem.weight is not None and problem.weight <= skip


def _with_documents(
    request: pb.ApplyApplicationRequest, sent: SentDocuments, *, validate_only: bool
) -> pb.ApplyApplicationRequest:
    whole = pb.ApplyApplicationRequest()
    whole.CopyFrom(request)
    whole.documents.extend(sent.messages())
    whole.validate_only = validate_only
    return whole


def _say_changes(
    changes: Iterable[pb.ApplicationChange], say: Say, suffix: str = "", *, in_detail: bool = False
) -> None:
    for change in changes:
        say(f"{subject_of(change.kind, change.name)} {WORDS[change.action]}{suffix}")
        if in_detail:
            for line in difference_lines(change):
                say(f"  {line}")


def difference_lines(change: pb.ApplicationChange) -> list[str]:
    """Returns a line for each field that changes, and for each that another call changed before."""
    found = []
    for field in change.fields:
        values = "(a secret value)" if field.masked else f"{_value(field.before)} -> {_value(field.after)}"
        found.append(f"{field.path}: {values}")
    for field in change.modified_fields:
        now = "a secret value" if field.masked else _value(field.after)
        found.append(f"changed by another call, {field.path}: now {now}")
    return found


def _value(text: str) -> str:
    return text or "none"


def _wait(
    client: Nouns[BlockingTransport],
    options: Options,
    where: str,
    changes: Iterable[pb.ApplicationChange],
    say: Say,
    complain: Say,
) -> bool:
    names = {
        each.name
        for each in changes
        if subject_of(each.kind, each.name).startswith("container/") and each.action != pb.CHANGE_ACTION_PRUNE
    }
    there: list[container_pb2.Container] = [
        each for each in client.containers.list(namespace=where, page_size=_PAGE_SIZE) if each.name in names
    ]
    return wait(client, where, there, options.timeout_seconds, options.patience, say, complain)


def _summary(
    done: pb.ApplyApplicationResponse, request: pb.ApplyApplicationRequest, left_out: Sequence[InputProblem]
) -> str:
    found = Counter(WORDS[each.action] for each in done.changes)
    words = ", ".join(f"{found[word]} {word}" for word in WORDS.values() if found[word]) or "nothing to apply"
    if request.validate_only:
        words += " (dry run: nothing was changed)"
    elif request.name:
        words += f": revision {done.revision} of {request.name}"
    return words + (f"; left out: {counts(left_out)}" if left_out else "")
