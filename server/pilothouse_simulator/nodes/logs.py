"""Pod logs: the response to `GET …/pods/NAME/log`.

A container's lines follow from its program and its start time (`pod_programs`), so any part of a log can be generated
at any time: the tail, the lines since a given time, with timestamps, cut at a number of bytes, or followed line by line
until shortly after the container ended. The refusals are those of the real server: ambiguous container, container not
started, no previous run.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pilothouse_simulator.nodes.kubelet import Kubelets
from pilothouse_simulator.nodes.pod_containers import ContainerAttempt, RunningContainer
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.clock import Clock, parse_time
from pilothouse_simulator.values.resources import PODS

JsonObject = dict[str, Any]
# Time with microseconds, additional nanoseconds, text.
Line = tuple[datetime, int, str]

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_LINGER_SECONDS = 1.0
_FALSE_WORDS = frozenset({"", "0", "f", "false"})
_PULL_PROBLEMS = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


@dataclass(frozen=True)
class LogRequest:
    """The requested part of a log. `since_time` has a time zone; limits are None if absent."""

    container: str | None = None
    follow: bool = False
    previous: bool = False
    since_seconds: int | None = None
    since_time: datetime | None = None
    tail_lines: int | None = None
    limit_bytes: int | None = None
    timestamps: bool = False


@dataclass(frozen=True)
class LogAnswer:
    """`code` is 200 with `chunks`, 204 with neither (the pod has no node yet), or the code of the `error` Status."""

    code: int
    error: JsonObject | None = None
    chunks: AsyncGenerator[bytes, None] | None = None


def parse_log_options(pod: str, query: Mapping[str, str]) -> LogRequest:
    """Returns the options of a query. Raises ApiError 400 for options that cannot be parsed, 422 for invalid values."""
    since_text = query.get("sinceTime")
    since_time = None
    if since_text:
        try:
            since_time = parse_time(since_text)
        except ValueError:
            raise api_errors.bad_request(
                f'parsing time "{since_text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{since_text}" as "2006"'
            ) from None
    numbers = {
        name: _integer(name, query[name])
        for name in ("tailLines", "limitBytes", "sinceSeconds")
        if query.get(name)
    }
    causes = []
    if query.get("stream", "All") != "All":
        causes.append(ErrorCause("FieldValueForbidden", "Forbidden: may not be specified", "stream"))
    if numbers.get("tailLines", 0) < 0:
        causes.append(_too_small("tailLines", numbers["tailLines"], "greater than or equal to 0"))
    if numbers.get("limitBytes", 1) < 1:
        causes.append(_too_small("limitBytes", numbers["limitBytes"], "greater than 0"))
    if "sinceSeconds" in numbers and since_time is not None:
        message = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
        causes.append(ErrorCause("FieldValueForbidden", message, "[]"))
    elif numbers.get("sinceSeconds", 1) < 1:
        causes.append(_too_small("sinceSeconds", numbers["sinceSeconds"], "greater than 0"))
    if causes:
        raise api_errors.invalid_kind("PodLogOptions", "", pod, causes)
    return LogRequest(
        container=query.get("container") or None,
        follow=_truth(query, "follow"),
        previous=_truth(query, "previous"),
        since_seconds=numbers.get("sinceSeconds"),
        since_time=since_time,
        tail_lines=numbers.get("tailLines"),
        limit_bytes=numbers.get("limitBytes"),
        timestamps=_truth(query, "timestamps"),
    )


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise api_errors.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax ({name})') from None


def _too_small(field: str, value: int, rule: str) -> ErrorCause:
    return ErrorCause("FieldValueInvalid", f"Invalid value: {value}: must be {rule}", field)


def _truth(query: Mapping[str, str], name: str) -> bool:
    return name in query and query[name].lower() not in _FALSE_WORDS


async def read_log(cluster: Kubelets, namespace: str, pod_name: str, options: LogRequest) -> LogAnswer:
    """Returns the log of one container, as chunks of whole lines (of one line each while following)."""
    pod = cluster.store.get(PODS, namespace, pod_name)
    if pod is None:
        return _refusal(api_errors.not_found(PODS, pod_name))
    try:
        name = _container_name(pod, options.container)
        if not pod["spec"].get("nodeName"):
            return LogAnswer(204)
        attempt = _attempt(cluster, pod, name, previous=options.previous)
    except api_errors.ApiError as error:
        return _refusal(error)
    return LogAnswer(200, chunks=_limited(_chunks(cluster.clock, attempt, options), options.limit_bytes))


def _refusal(error: api_errors.ApiError) -> LogAnswer:
    return LogAnswer(error.code, error=error.status)


def _container_name(pod: JsonObject, wanted: str | None) -> str:
    """Returns the requested container. With several containers, the request or the default annotation must name one."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    main = [str(container["name"]) for container in spec["containers"]]
    initial = [str(container["name"]) for container in spec.get("initContainers") or []]
    if wanted is None:
        default = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_CONTAINER)
        if len(main) == 1:
            return main[0]
        if default in main:
            return str(default)
        choice = f"choose one of: [{' '.join(main)}]"
        if initial:
            choice += f" or one of the init containers: [{' '.join(initial)}]"
        raise api_errors.bad_request(f"a container name must be specified for pod {name}, {choice}")
    if wanted not in [*main, *initial]:
        raise api_errors.bad_request(f"container {wanted} is not valid for pod {name}")
    return wanted


def _attempt(cluster: Kubelets, pod: JsonObject, name: str, *, previous: bool) -> ContainerAttempt:
    """Returns the run whose log is requested; the last run while a container waits for its next one."""
    worker = cluster.worker(pod)
    container = next((entry for entry in worker.containers if entry.name == name), None) if worker else None
    pod_name = pod["metadata"]["name"]
    if container is None:
        raise api_errors.bad_request(_waiting_message(name, pod_name, "ContainerCreating"))
    waits_again = container.waiting is not None and container.current is not None
    attempt = container.current if not previous or waits_again else container.previous
    if attempt is not None:
        return attempt
    if previous:
        raise api_errors.bad_request(f'previous terminated container "{name}" in pod "{pod_name}" not found')
    raise api_errors.bad_request(_waiting_message(name, pod_name, _waiting_reason(container)))


def _waiting_reason(container: RunningContainer) -> str:
    reason = container.waiting[0] if container.waiting is not None else "ContainerCreating"
    return _PULL_PROBLEMS.get(reason, reason)


def _waiting_message(container: str, pod: str, reason: str) -> str:
    return f'container "{container}" in pod "{pod}" is waiting to start: {reason}'


async def _chunks(
    clock: Clock, attempt: ContainerAttempt, options: LogRequest
) -> AsyncGenerator[bytes, None]:
    """Yields the present lines in one chunk, then, when following, each new line in a chunk of its own."""
    seen_until = _age(clock, attempt)
    all_lines = list(_lines(attempt, seen_until))
    written = len(all_lines)
    lines = _asked_for(all_lines, options, clock.now())
    if not options.follow:
        if lines:
            yield b"".join(_format(line, options.timestamps) for line in lines)
        return
    for line in lines:
        yield _format(line, options.timestamps)
    if attempt.finished_at is not None:
        return
    while True:
        due = attempt.program.next_output_after(seen_until)
        ended = await clock.wait_for(attempt.over, None if due is None else due - _age(clock, attempt))
        seen_until = _age(clock, attempt)
        for line in list(_lines(attempt, seen_until))[written:]:
            written += 1
            yield _format(line, options.timestamps)
        if ended:
            await clock.sleep(_LINGER_SECONDS)
            return


def _asked_for(lines: list[Line], options: LogRequest, now: datetime) -> list[Line]:
    """Returns the lines that the options select: of the last lines, those that are new enough."""
    if options.tail_lines is not None:
        lines = lines[max(0, len(lines) - options.tail_lines) :]
    since = options.since_time
    if options.since_seconds is not None:
        since = now - timedelta(seconds=options.since_seconds)
    return lines if since is None else [line for line in lines if line[0] >= since]


def _age(clock: Clock, attempt: ContainerAttempt) -> float:
    """Returns the seconds that the run has taken so far or, after its end, in total."""
    return ((attempt.finished_at or clock.now()) - attempt.started_at).total_seconds()


def _lines(attempt: ContainerAttempt, until: float) -> Iterator[Line]:
    for number, (offset, text) in enumerate(attempt.program.output(until)):
        yield attempt.started_at + timedelta(seconds=offset), number % 1000, text


def _format(line: Line, timestamps: bool) -> bytes:
    moment, nanoseconds, text = line
    if not timestamps:
        return f"{text}\n".encode()
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}{nanoseconds:03d}Z {text}\n".encode()


async def _limited(chunks: AsyncGenerator[bytes, None], limit: int | None) -> AsyncGenerator[bytes, None]:
    """Yields the chunks, cut after `limit` bytes, even within a line."""
    async with aclosing(chunks):
        async for chunk in chunks:
            if limit is None:
                yield chunk
                continue
            yield chunk[:limit]
            limit -= len(chunk)
            if limit <= 0:
                return
