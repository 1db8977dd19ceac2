"""`pilothouse apply`: turns files into desired state in one transaction, of an application if one is named.

The server translates, compares and writes. A trial comes first: it shows every problem with its file and line, and the
cluster's warnings, before anything is changed. This module does no part of the comparison.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import IO

import yaml

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.resource.v1.resource_pb2 import FieldChange
from pilothouse_client.all_nouns import Nouns
from pilothouse_client.apply.documents import load
from pilothouse_client.apply.object_waits import wait_for_objects
from pilothouse_client.apply.outcome import ApplyOutput, ApplyResult, Options, Say, refuse
from pilothouse_client.apply.rollout import wait
from pilothouse_client.apply.sent_documents import SentDocuments, subject_of
from pilothouse_client.transport import BlockingTransport
from pilothouse_client.waiting_applications import ApplicationWaitError, wait_for_application
from pilothouse_manifests.translator.convert import convert, unknown_kinds
from pilothouse_manifests.translator.literals import literals
from pilothouse_manifests.translator.manifest import Manifest
from pilothouse_manifests.translator.nodes import Document, plain
from pilothouse_manifests.translator.problems import InputProblem, Problems, counts, listed

# The greatest number of trials. Each leaves out the parts that the trial before it could not represent; the server may
# refuse a part only after another one is gone.
_ROUNDS = 5
_PAGE_SIZE = 1000
# The reason of a warning about something that is left out without a loss.
_LEFT_OUT = "LEFT_OUT"
# Documents that may be a part of a container instead of objects of their own.
_OF_CONTAINERS = ("Service", "ServiceAccount")
_SHOWN_PARTS = 3
Read = Callable[[Sequence[str], Problems, IO[bytes] | None], list[Document]]
WORDS = {
    pb.CHANGE_ACTION_CREATE: "created",
    pb.CHANGE_ACTION_UPDATE: "updated",
    pb.CHANGE_ACTION_UNCHANGED: "unchanged",
    pb.CHANGE_ACTION_PRUNE: "pruned",
    pb.CHANGE_ACTION_REPLACE: "replaced",
    pb.CHANGE_ACTION_RUN: "run again",
}


def apply(
    client: Nouns[BlockingTransport],
    options: Options,
    request: pb.ApplyApplicationRequest,
    output: ApplyOutput,
    *,
    standard_input: IO[bytes] | None = None,
    read: Read = load,
) -> ApplyResult:
    """Applies the sources.

    `request`: the call, without its documents; `read` returns the documents of the sources.

    Raises:
        PilothouseError: the server cannot be reached, or refuses the call as a whole.
    """
    problems = Problems()
    sent = SentDocuments(read(options.sources, problems, standard_input), problems)
    if not len(sent) and not problems.all and not request.prune:
        output.complain("nothing to apply: the input contains no document")
        return ApplyResult.REFUSED
    return _Apply(client, options, request, sent, problems, output).run()


class _Apply:
    """One apply, from its parsed documents to its result."""

    def __init__(
        self,
        client: Nouns[BlockingTransport],
        options: Options,
        request: pb.ApplyApplicationRequest,
        sent: SentDocuments,
        problems: Problems,
        output: ApplyOutput,
    ) -> None:
        self._client = client
        self._options = options
        self._request = request
        self._sent = sent
        self._problems = problems
        self._output = output

    def run(self) -> ApplyResult:
        """Applies the documents and shows the result; returns it."""
        skip, dry_run = self._options.skip, self._request.validate_only
        local = self._checked_here()
        if self._problems.refused(skip):
            refuse(self._problems, skip, self._output, validate_only=dry_run)
            return ApplyResult.REFUSED
        done = self._tried()
        self._warn(done, local)
        if dry_run:
            self._output.answer = done
            _say_changes(done.changes, self._sent, self._output.say, dry_run=True)
        if self._problems.refused(skip):
            refuse(self._problems, skip, self._output, validate_only=dry_run)
            return ApplyResult.REFUSED
        left_out = self._problems.skipped(skip)
        self._output.left_out = left_out
        for line in listed(left_out):
            self._output.complain(f"left out: {line}")
        if not dry_run:
            done = self._client.applications.apply.send(self._whole_request(validate_only=False))
            self._output.answer = done
            _say_changes(done.changes, self._sent, self._output.say)
        running = dry_run or not self._options.wait or self._waited(done)
        self._output.say(_summary(done, self._request, left_out))
        if not running:
            return ApplyResult.NOT_RUNNING
        return ApplyResult.LEFT_OUT if left_out else ApplyResult.DONE

    def _checked_here(self) -> Manifest:
        """Finds the problems that need no server, and leaves out the parts that the caller allows to be left out."""
        documents = self._sent.documents
        # Only the server knows which kinds of custom resources the cluster opens, so all count as open here.
        opened = unknown_kinds(documents)
        whole = bool(self._request.name)
        local = convert(documents, self._request.namespace, self._problems, opened, ordered=whole)
        for note in self._problems.notes:
            self._output.note(str(note))
        self._sent.leave_out(self._problems.skipped(self._options.skip))
        return local

    def _tried(self) -> pb.ApplyApplicationResponse:
        """Returns the trial of all that is not left out; adds the problems of all trials to `_problems`."""
        for attempts_left in reversed(range(_ROUNDS)):
            trial = self._client.applications.apply.send(self._whole_request(validate_only=True))
            found = Problems()
            for each in trial.problems:
                found.add(self._sent.problem_of(each))
            for problem in found.all:
                self._problems.add(problem)
            accepted = found.skipped(self._options.skip)
            if attempts_left and accepted and self._sent.leave_out(accepted):
                continue
            if (more := trial.problem_count - len(trial.problems)) > 0:
                place = self._problems.all[-1].place
                self._problems.add(InputProblem(place, "", "", f"and {more} more problems"))
            return trial
        raise AssertionError("the last attempt returns")

    def _whole_request(self, *, validate_only: bool) -> pb.ApplyApplicationRequest:
        whole = pb.ApplyApplicationRequest()
        whole.CopyFrom(self._request)
        whole.documents.extend(self._sent.messages())
        whole.validate_only = validate_only
        return whole

    def _warn(self, trial: pb.ApplyApplicationResponse, local: Manifest) -> None:
        for warning in trial.warnings:
            # The notes contain these warnings, with their lines.
            if warning.reason != _LEFT_OUT:
                parts = (self._located(warning.path), warning.message)
                self._output.warn(": ".join(filter(None, parts)))
        _warn_of_literals(local, trial.changes, self._output.warn)

    def _located(self, path: str) -> str:
        """Returns the path of a warning, `Deployment/web: container.image`, with the position of its document."""
        subject, _, field = path.partition(": ")
        kind, _, name = subject.partition("/")
        document = self._sent.find(kind, name)
        if document is None:
            return path
        return ": ".join(filter(None, (str(document.place), subject_of(kind, name), field)))

    def _waited(self, done: pb.ApplyApplicationResponse) -> bool:
        """Waits; returns whether the application is healthy, or, without one, the containers run and objects are."""
        if self._request.name:
            return self._waited_for(done.application)
        names = {
            each.name
            for each in done.changes
            if subject_of(each.kind, "") == "container/" and each.action != pb.CHANGE_ACTION_PRUNE
        }
        where, options = self._request.namespace, self._options
        there = [
            each
            for each in self._client.containers.list(namespace=where, page_size=_PAGE_SIZE)
            if each.name in names
        ]
        began, limit = time.monotonic(), options.timeout_seconds
        show, miss = self._output.show_progress, self._output.miss
        if not wait(self._client, where, there, limit, options.patience, show, miss, self._output.count):
            return False
        left = limit - (time.monotonic() - began)
        return wait_for_objects(self._client, where, done.changes, left, show, miss)

    def _waited_for(self, application: pb.Application) -> bool:
        said = ""

        def progress(seen: pb.Application) -> None:
            nonlocal said
            status = pb.ApplicationStatus.Name(seen.status).removeprefix("APPLICATION_STATUS_").lower()
            line = f"application/{seen.name} {status}{f': {seen.message}' if seen.message else ''}"
            if line != said:
                said = line
                self._output.show_progress(line)

        try:
            wait_for_application(
                self._client,
                application,
                timeout=self._options.timeout_seconds,
                patience=self._options.patience,
                progress=progress,
            )
        except ApplicationWaitError as failed:
            self._output.miss(str(failed))
            for line in failed.last_lines:
                self._output.miss(f"  {line}")
            if failed.is_rollback_ahead:
                to_see = f"to see it: pilothouse applications revisions {application.name}"
                self._output.miss(f"if it fails, the server rolls back to the previous revision; {to_see}")
            return False
        return True


def _warn_of_literals(manifest: Manifest, changes: Iterable[pb.ApplicationChange], warn: Say) -> None:
    """Writes a line for each plain-text value that a change sets and that looks like a secret."""
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
                warn(
                    f"{workload.place}: container/{workload.name}: {name} is plain text and visible to all "
                    f"who may see the container{advice}"
                )


def _say_changes(
    changes: Iterable[pb.ApplicationChange], sent: SentDocuments, say: Say, *, dry_run: bool = False
) -> None:
    shown, changes = set(), list(changes)
    for change, line in zip(changes, results(changes, dry_run=dry_run), strict=True):
        shown.add((change.kind, change.name))
        if dry_run and change.action != pb.CHANGE_ACTION_UNCHANGED:
            say("\n".join(_difference_from_server(change, sent)))
        say(line)
    parts = [subject_of(*each) for each in sent.names if each[0] in _OF_CONTAINERS and each not in shown]
    if parts:
        more = f" and {len(parts) - _SHOWN_PARTS} more" if len(parts) > _SHOWN_PARTS else ""
        say(f"with their containers: {', '.join(parts[:_SHOWN_PARTS])}{more}")


def phase_word(phase: pb.ApplicationPhase.ValueType) -> str:
    """Returns Argo CD's word for the phase."""
    words = pb.ApplicationPhase.Name(phase).removeprefix("APPLICATION_PHASE_").split("_")
    return "".join(each.capitalize() for each in words)


def _line(change: pb.ApplicationChange) -> str:
    """Returns the line with the result for an object.

    A changed Job does not change its run, only the next one."""
    subject = subject_of(change.kind, change.name)
    if change.action == pb.CHANGE_ACTION_REPLACE:
        return f"{subject} replaced: a new StatefulSet adopts its pods and claims"
    more = ""
    if change.kind == "Job" and change.action == pb.CHANGE_ACTION_UPDATE and _changes_runs(change):
        more = f": this starts no new run; `pilothouse containers run {change.name}` starts one"
    return f"{subject} {WORDS[change.action]}{more}"


def _changes_runs(change: pb.ApplicationChange) -> bool:
    return any(not each.path.startswith(("labels", "annotations")) for each in change.fields)


def results(changes: Sequence[pb.ApplicationChange], *, dry_run: bool = False) -> list[str]:
    """Returns a line for each object: its result, with its phase and wave if there are several."""
    ordered = len({(each.phase, each.wave) for each in changes}) > 1
    return [
        (f"{phase_word(each.phase)} {each.wave}: " if ordered else "")
        + _line(each)
        + (" (dry run)" if dry_run else "")
        for each in changes
    ]


def _difference_from_server(change: pb.ApplicationChange, sent: SentDocuments) -> list[str]:
    document = sent.find(change.kind, change.name)
    text = ""
    if document is not None and change.action == pb.CHANGE_ACTION_CREATE and change.kind != "Secret":
        text = yaml.safe_dump(plain(document), sort_keys=False, allow_unicode=True, width=100)
    lines = difference(change, "server", str(document.place) if document is not None else "")
    return [*lines, *(f"+{line}" for line in text.splitlines())]


def difference(change: pb.ApplicationChange, before: str, after: str) -> list[str]:
    """Returns the lines that show how an object differs between two states, which `before` and `after` name."""
    subject = subject_of(change.kind, change.name)
    names = [f"{subject} ({state})" if state else subject for state in (before, after)]
    if change.action == pb.CHANGE_ACTION_CREATE:
        names[0] = "/dev/null"
    elif change.action == pb.CHANGE_ACTION_PRUNE:
        names[1] = "/dev/null"
    return [f"--- {names[0]}", f"+++ {names[1]}", *difference_lines(change)]


def difference_lines(change: pb.ApplicationChange) -> list[str]:
    """Returns the lines for the fields that change, and for fields that other calls have changed before."""
    found = field_lines(change.fields)
    for field in change.modified_fields:
        now = "(a secret value)" if field.masked else value_of(field.after)
        found.append(f"!{field.path}: now {now}, changed by another call")
    return found


def field_lines(fields: Iterable[FieldChange]) -> list[str]:
    """Returns the lines for fields that change: the former value, and the new one."""
    found = []
    for field in fields:
        if field.masked:
            found.append(f"~{field.path}: (a secret value)")
            continue
        found += [f"-{field.path}: {value_of(field.before)}"] if field.before else []
        found += [f"+{field.path}: {value_of(field.after)}"] if field.after else []
    return found


def value_of(text: str) -> str:
    """Returns a value as people write it: a string without quotes, `none` for an empty value."""
    if not text:
        return "none"
    try:
        value = json.loads(text)
    except ValueError:
        # The server has cut a long value, so it is no longer JSON.
        return text
    return value if isinstance(value, str) and value else text


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
