"""Failures of a real API server, each converted to its error class.

The class determines the next step.
"""

from __future__ import annotations

import pytest

from pilothouse_server.kubernetes.errors import (
    NAME_TAKEN,
    ClusterError,
    Conflict,
    CredentialsRefused,
    Expired,
    FieldConflict,
    Forbidden,
    InternalError,
    Invalid,
    NotFound,
    Refused,
    Status,
    StatusCause,
    Throttled,
    TooLarge,
    Unauthorized,
    Unreachable,
    from_response,
    from_status,
)
from tests.kubernetes import recorded


def failures(recording: str) -> list[tuple[str, ClusterError]]:
    return [
        (note, from_response(status, {}, body))
        for note, status, body in recorded.answers(recording)
        if status >= 400
    ]


def find(recording: str, words: str) -> ClusterError:
    return next(error for note, error in failures(recording) if words in note)


def test_a_conflict_names_every_manager_and_field() -> None:
    error = find("03a-deployment-server-side-apply", "three conflicts in one answer")
    assert isinstance(error, Conflict)
    assert error.fields == (
        FieldConflict("pilothouse", ".spec.replicas"),
        FieldConflict("pilothouse", '.spec.template.spec.containers[name="app"].image'),
        FieldConflict("pilothouse", '.spec.template.spec.containers[name="app"].env[name="A"].value'),
    )
    assert error.outlook == "refused"


def test_the_manager_is_found_in_every_wording() -> None:
    human = find("03a-deployment-server-side-apply", "409 naming human")
    scaler = find("03a-deployment-server-side-apply", "conflict names the subresource")
    assert isinstance(human, Conflict)
    assert isinstance(scaler, Conflict)
    assert [field.manager for field in human.fields] == ["human"]
    assert [field.manager for field in scaler.fields] == ["scaler"]


def test_a_stale_version_is_a_conflict_without_fields_to_be_retried() -> None:
    error = find("03a-deployment-server-side-apply", "stale resourceVersion")
    assert isinstance(error, Conflict)
    assert error.fields == ()
    assert error.outlook == "passing"


def test_a_taken_name_differs_from_a_stale_version() -> None:
    taken = find("10-lease", "AlreadyExists")
    stale = find("10-lease", "with the version it read before")
    assert isinstance(taken, Conflict)
    assert isinstance(stale, Conflict)
    assert (taken.already_exists, stale.already_exists) == (True, False)


@pytest.mark.parametrize("note", ["duplicate key in a list-map", "wrong type (number for a string)"])
def test_an_apply_refused_with_500_is_a_refusal_and_not_an_outage(note: str) -> None:
    error = find("03a-deployment-server-side-apply", note)
    assert isinstance(error, Invalid)
    assert "containers" in error.message


def test_fields_of_a_refused_body_are_named() -> None:
    refused = [error for _, error in failures("03b-deployment-validation") if isinstance(error, Invalid)]
    named = [cause.field for error in refused for cause in error.causes]
    assert "spec.template.spec.containers[0].image" in named
    assert all(error.message for error in refused)


def test_timeouts_in_plain_text_are_outages() -> None:
    errors = [error for note, error in failures("11b-storage-stalled") if note != "bad timeout value"]
    assert errors
    assert {type(error) for error in errors} == {Unreachable}
    assert all(error.outlook == "passing" for error in errors)


def test_a_quota_refusal_keeps_the_clusters_message() -> None:
    exceeded = [error for _, error in failures("07a-quota-and-limitrange") if isinstance(error, Forbidden)]
    assert any("exceeded quota" in error.message for error in exceeded)


def test_a_bad_token_and_a_missing_right_differ() -> None:
    kinds = {type(error) for _, error in failures("07b-authentication-and-rbac")}
    assert {Unauthorized, Forbidden} <= kinds


def test_an_expired_continue_token_raises_expired() -> None:
    assert isinstance(failures("04c-expired-410")[0][1], Expired)


def test_deletions_report_failed_preconditions_and_missing_objects() -> None:
    assert isinstance(find("03f-deployment-delete", "precondition: another uid"), Conflict)
    assert isinstance(find("03f-deployment-delete", "missing"), NotFound)


def test_throttled_errors_contain_the_retry_delay() -> None:
    told = from_response(429, {"Retry-After": "7"}, b"slow down")
    untold = from_response(429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"")
    assert isinstance(told, Throttled)
    assert isinstance(untold, Throttled)
    assert (told.retry_after_seconds, told.message) == (7.0, "slow down")
    assert untold.retry_after_seconds > 0


def test_every_status_code_has_an_error_class_and_a_message() -> None:
    for code in range(400, 600):
        error = from_status(Status(), code=code)
        assert isinstance(error, Refused | InternalError | Unreachable | Throttled | Unauthorized | Expired)
        assert str(code) in error.message
        assert error.reason.isalnum()


def test_a_response_that_is_not_text_becomes_a_cluster_error() -> None:
    assert isinstance(from_response(502, {}, b"\xff\xfe<html>"), Unreachable)
    assert len(from_response(400, {}, b"x" * 100_000).message) <= 4096


def test_an_object_that_is_too_large_is_refused_in_every_wording() -> None:
    for note in ("body above 3 MiB", "object above what etcd takes"):
        error = find("03b-deployment-validation", note)
        assert isinstance(error, TooLarge)
        assert (error.reason, error.outlook) == ("TooLarge", "refused")
        assert "too large" in error.message
    sent = "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2716463 vs. 2097152)"
    assert isinstance(from_status(Status(status="Failure", message=sent), code=500), TooLarge)


def test_an_internal_error_differs_from_an_unreachable_server() -> None:
    webhook = 'Internal error occurred: failed calling webhook "a.b": failed to call webhook: EOF'
    error = from_status(Status(status="Failure", message=webhook, reason="InternalError"), code=500)
    assert isinstance(error, InternalError)
    assert (error.reason, error.outlook, error.message) == ("InternalError", "passing", webhook)
    leaderless = "rpc error: code = Unavailable desc = etcdserver: leader changed"
    assert isinstance(from_status(Status(status="Failure", message=leaderless), code=500), Unreachable)
    assert isinstance(from_response(500, {}, b"<html>proxy</html>"), Unreachable)


def test_an_invalid_reason_of_a_webhook_is_not_used_as_the_reason() -> None:
    error = from_status(Status(status="Failure", message="no", reason="[too-big] not today"), code=403)
    assert isinstance(error, Forbidden)
    assert (error.reason, error.status_reason) == ("Forbidden", "[too-big] not today")


@pytest.mark.parametrize("code", [403, 409, 422])
def test_nul_characters_are_removed_from_refusals(code: int) -> None:
    cause = rb'{"reason": "a\u0000b", "message": "a\u0000b", "field": "a\u0000b"}'
    body = rb'{"status": "Failure", "reason": "a\u0000b", "message": "a\u0000b", "details": {"causes": [%b]}}'
    error = from_response(code, {}, body % cause)
    assert isinstance(error, Refused)
    (shown,) = error.causes
    said = {error.message, error.status_reason, shown.reason, shown.message, shown.field}
    assert said == {"ab"}


@pytest.mark.parametrize(
    ("error", "outlook"),
    [
        (NotFound("no such namespace", code=404), "gone"),
        (Forbidden("going", code=403, causes=(StatusCause("NamespaceTerminating"),)), "gone"),
        (Forbidden("quota", code=403), "refused"),
        (Conflict("the name is taken", status_reason=NAME_TAKEN), "refused"),
        (Conflict("there already", status_reason="AlreadyExists"), "refused"),
        (Conflict("stale version"), "passing"),
        (CredentialsRefused("no certificate"), "passing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_error_has_the_outlook_of_its_call(error: ClusterError, outlook: str) -> None:
    assert error.outlook == outlook
