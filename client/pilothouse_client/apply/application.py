"""`pilothouse apply`: the files become desired state in one transaction, of an application if one is named.

The server translates, compares and writes. A trial comes first, so that every problem is shown with its file and line
before anything is changed, and the cluster's warnings are seen; nothing of the comparison is done here.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import IO

import yaml

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse_client.all_nouns import Nouns
from pilothouse_client.apply.documents import load
from pilothouse_client.apply.outcome import ApplyResult, Options, Say, refuse
from pilothouse_client.apply.sent_documents import SentDocuments, subject_of
from pilothouse_client.transport import BlockingTransport
from pilothouse_client.waiting_applications import ApplicationWaitError, wait_for_application
from pilothouse_manifests.translator.convert import convert
from pilothouse_manifests.translator.literals import literals
from pilothouse_manifests.translator.manifest import Manifest
from pilothouse_manifests.translator.nodes import plain
from pilothouse_manifests.translator.problems import InputProblem, Problems, counts, listed
from pilothouse_manifests.translator.weights import ProblemWeight

# So often documents are sent without what may be left out: a part may be refused only after another one.
_ROUNDS = 5
# Documents that may be a part of a container instead of objects of their own.
_OF_CONTAINERS = ("Service", "ServiceAccount")
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
    local = convert(sent.documents, request.namespace, Problems())
    trial, left_out = _tried(client, options, request, sent, problems)
    for warning in trial.warnings:
        words = f"{warning.path}: {warning.message}" if warning.path else warning.message
        complain(f"warning: {words}")
    _warn_of_literals(local, trial.changes, complain)
    if request.validate_only:
        _say_changes(trial.changes, sent, say, dry_run=True)
    if problems.refused(options.skip):
        refuse(problems, options.skip, complain)
        return ApplyResult.REFUSED
    for line in listed(left_out):
        complain(f"left out: {line}")
    done = trial
    if not request.validate_only:
        done = client.applications.apply.send(_with_documents(request, sent, validate_only=False))
        _say_changes(done.changes, sent, say)
    running = True
    if options.wait and not request.validate_only:
        running = _wait(client, options, done.application, say, complain)
    say(_summary(done, request, left_out))
    if not running:
        return ApplyResult.NOT_RUNNING
    return ApplyResult.LEFT_OUT if left_out else ApplyResult.DONE


def _warn_of_literals(manifest: Manifest, changes: Iterable[pb.ApplicationChange], complain: Say) -> None:
    """Writes a line for each value in the clear that a change sets."""
    by_name = {each.name: each for each in changes if subject_of(each.kind, "") == "container/"}
    for workload in manifest.workloads:
        change = by_name.get(workload.name)
        if change is None or change.action == pb.CHANGE_ACTION_UNCHANGED:
            continue
        changed = {re.split(r"[.\[]", each.path)[0] for each in change.fields}
        for field, name in literals(workload.values):
            if change.action == pb.CHANGE_ACTION_CREATE or field in changed:
                # Headers of probes and hooks cannot come from a Secret.
                advice = "" if name.startswith("header ") else ": put it into a Secret"
                complain(
                    f"warning: {workload.place}: container/{workload.name}: {name} is plain text and visible to all "
                    f"who may see the container{advice}"
                )


def _tried(
    client: Nouns[BlockingTransport],
    options: Options,
    request: pb.ApplyApplicationRequest,
    sent: SentDocuments,
    problems: Problems,
) -> tuple[pb.ApplyApplicationResponse, tuple[InputProblem, ...]]:
    """Returns the trial of all that is not left out, and the rest; problems of the trial are added."""
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
    changes: Iterable[pb.ApplicationChange], sent: SentDocuments, say: Say, *, dry_run: bool = False
) -> None:
    shown = set()
    for change in changes:
        shown.add((change.kind, change.name))
        if dry_run and change.action != pb.CHANGE_ACTION_UNCHANGED:
            say(difference(change, sent))
        say(_line(change) + (" (dry run)" if dry_run else ""))
    for kind, name in sent.names:
        if kind in _OF_CONTAINERS and (kind, name) not in shown:
            say(f"{subject_of(kind, name)} is a part of its container")


def _line(change: pb.ApplicationChange) -> str:
    """Returns the result for an object. A Job's run is as it was made, so that a change waits for the next one."""
    subject = subject_of(change.kind, change.name)
    if change.action == pb.CHANGE_ACTION_REPLACE:
        return f"{subject} replaced: a new StatefulSet around its pods and claims"
    more = ""
    if change.kind == "Job" and change.action == pb.CHANGE_ACTION_UPDATE and _changes_runs(change):
        more = f": starts no run by itself; `pilothouse containers run {change.name}` does"
    return f"{subject} {WORDS[change.action]}{more}"


def _changes_runs(change: pb.ApplicationChange) -> bool:
    return any(not each.path.startswith(("labels", "annotations")) for each in change.fields)


def difference(change: pb.ApplicationChange, sent: SentDocuments) -> str:
    """Returns how an object differs from the server's: the fields, or the document of one that is created."""
    subject = subject_of(change.kind, change.name)
    document = sent.find(change.kind, change.name)
    after = f"{subject} ({document.place})" if document is not None else subject
    if change.action == pb.CHANGE_ACTION_PRUNE:
        return f"--- {subject} (server)\n+++ /dev/null"
    if change.action == pb.CHANGE_ACTION_CREATE:
        lines = ["--- /dev/null", f"+++ {after}"]
        if document is not None and change.kind != "Secret":
            text = yaml.safe_dump(plain(document), sort_keys=False, allow_unicode=True, width=100)
            lines += [f"+{line}" for line in text.splitlines()]
        return "\n".join(lines)
    return "\n".join([f"--- {subject} (server)", f"+++ {after}", *difference_lines(change)])


def difference_lines(change: pb.ApplicationChange) -> list[str]:
    """Returns the lines for the fields that change, and for those that other calls changed before."""
    found = []
    for field in change.fields:
        if field.masked:
            found.append(f"~{field.path}: (a secret value)")
            continue
        found += [f"-{field.path}: {value_of(field.before)}"] if field.before else []
        found += [f"+{field.path}: {value_of(field.after)}"] if field.after else []
    for field in change.modified_fields:
        now = "(a secret value)" if field.masked else value_of(field.after)
        found.append(f"!{field.path}: {now} now, by another call")
    return found


def value_of(text: str) -> str:
    """Returns a value as people write it: a string without quotes, `none` where there is none."""
    if not text:
        return "none"
    try:
        value = json.loads(text)
    except ValueError:
        # A long one, which the server has cut.
        return text
    return value if isinstance(value, str) and value else text


def _wait(
    client: Nouns[BlockingTransport],
    options: Options,
    application: pb.Application,
    say: Say,
    complain: Say,
) -> bool:
    said = ""

    def progress(seen: pb.Application) -> None:
        nonlocal said
        status = pb.ApplicationStatus.Name(seen.status).removeprefix("APPLICATION_STATUS_").lower()
        line = f"application/{seen.name} {status}{f': {seen.message}' if seen.message else ''}"
        if line != said:
            said = line
            say(line)

    try:
        wait_for_application(
            client, application, timeout=options.timeout_seconds, patience=options.patience, progress=progress
        )
    except ApplicationWaitError as failed:
        complain(str(failed))
        for line in failed.last_lines:
            complain(f"  {line}")
        return False
    return True


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
