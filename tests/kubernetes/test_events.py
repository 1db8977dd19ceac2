"""Kubernetes Events of a real cluster.

The API shows them; they are the reason of a status, and part of the history.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pilothouse_server.containers.model import MountedVolume, Observed
from pilothouse_server.containers.observation import observe
from pilothouse_server.containers.volume_attachment import volumes_attachable
from pilothouse_server.kubernetes.events import MOST_EVENTS, EventSubject, explanation, newest, warnings
from pilothouse_server.kubernetes.objects import EventObject, EventSeries, ObjectReference
from pilothouse_server.values.volumes import VolumeMount
from tests.kubernetes import recorded
from tests.kubernetes.containers import container
from tests.kubernetes.test_observation import deployment

NOW = datetime(2026, 11, 24, 14, 21, 30, tzinfo=UTC)


def event(
    reason: str, seconds: float = 0.0, *, uid: str = "p", normal: bool = False, **fields: Any
) -> EventObject:
    return EventObject(
        involved_object=ObjectReference("Pod", name="web-1-abcde", uid=uid),
        type="Normal" if normal else "Warning",
        reason=reason,
        message=fields.pop("message", f"{reason} it is"),
        last_timestamp=NOW + timedelta(seconds=seconds),
        **fields,
    )


def test_both_formats_of_events_are_shown_with_times_and_counts() -> None:
    scheduled = recorded.events("05-pod-unschedulable")
    about = scheduled[0].involved_object
    (failed, *_) = newest(scheduled, [EventSubject("Pod", about.name, about.uid)])
    assert (failed.type, failed.reason, failed.count) == ("Warning", "FailedScheduling", 1)
    assert failed.message.startswith("0/11 nodes are available")
    assert failed.first_time == failed.last_time == scheduled[0].event_time
    mounts = recorded.events("05-pod-volume-configmap-missing")
    about = mounts[0].involved_object
    mount = next(e for e in newest(mounts, [EventSubject("Pod", about.name)]) if e.reason == "FailedMount")
    assert mount.count > 1
    assert mount.first_time is not None
    assert mount.last_time is not None
    assert mount.first_time < mount.last_time
    assert (mount.kind, mount.name) == ("Pod", about.name)


def test_a_series_has_its_count_and_its_last_time() -> None:
    repeated = EventObject(event_time=NOW, series=EventSeries(7, NOW + timedelta(minutes=1)))
    assert (repeated.times, repeated.first_time, repeated.time) == (7, NOW, NOW + timedelta(minutes=1))


def test_events_are_limited_newest_first_and_of_the_latest_object() -> None:
    many = [event("BackOff", number, message=str(number)) for number in range(30)]
    former = [event("Killing", 40, uid="former")]
    shown = newest(many, [EventSubject("Pod", "web-1-abcde")])
    assert [each.message for each in shown] == [str(number) for number in range(29, 29 - MOST_EVENTS, -1)]
    assert [each.reason for each in newest(many + former, [EventSubject("Pod", "web-1-abcde")])] == [
        "Killing"
    ]
    assert len(newest(many + former, [EventSubject("Pod", "web-1-abcde", "p")])) == MOST_EVENTS
    assert newest(many, [EventSubject("Service", "web-1-abcde")]) == ()


def test_a_failed_attachment_explains_a_failed_mount() -> None:
    attach = event("FailedAttachVolume", 0, message="Multi-Attach error for volume")
    mount = event("FailedMount", 120, message="Unable to attach or mount volumes: timed out")
    assert explanation([attach, mount], "p", started=False) == ("FailedAttachVolume", attach.message)
    attached = event("SuccessfulAttachVolume", 60, normal=True)
    assert explanation([attach, attached, mount], "p", started=False) == ("FailedMount", mount.message)
    assert explanation([attach, mount], "other", started=False) is None
    # A past obstacle of a pod that has started no longer counts.
    assert explanation([attach, mount], "p", started=True) is None


def test_an_unrelated_warning_is_not_the_reason() -> None:
    """An unrelated warning, also newer than the cause, is not the reason.

    A node with too many name servers sends this warning for each of its pods, also for healthy ones.
    """
    mount = event("FailedMount", 0)
    resolver = event("DNSConfigForming", 5, message="Nameserver limits were exceeded")
    assert explanation([mount, resolver], "p", started=False) == ("FailedMount", mount.message)
    assert explanation([resolver], "p", started=False) is None
    assert [each.reason for each in warnings([mount, resolver], ["p"], beside="", now=NOW)] == ["FailedMount"]


def test_a_failed_readiness_probe_is_the_reason() -> None:
    running = [p for p in recorded.pods("05-pod-readiness-failing") if p.status.phase == "Running"]
    unready = next(p for p in running if p.metadata.deletion_timestamp is None)
    silent = observe(container(), deployment(), (), [unready], now=NOW)
    assert (silent.observed.reason, silent.unexplained) == ("ContainersNotReady", (unready.metadata.name,))
    # The cluster sends the last event while the pod is being deleted.
    events = [e for e in recorded.events("05-pod-readiness-failing") if "no running task" not in e.message]
    told = observe(container(), deployment(), (), [unready], events, now=NOW).observed
    assert (told.status, told.reason) == ("pending", "Unhealthy")
    assert told.message == "Readiness probe failed: no database"


def test_the_reason_of_earlier_events_stays_while_there_are_none() -> None:
    """A new observer has not requested events yet.

    The cluster stores events for only an hour.
    """
    stuck = recorded.pods("05-pod-volume-configmap-missing")
    waiting = next(pod for pod in stuck if pod.spec.node_name and pod.metadata.deletion_timestamp is None)
    before = Observed(reason="FailedMount", message="why")
    seen = observe(container(observed=before), deployment(), (), [waiting], now=NOW)
    assert (seen.observed.reason, seen.observed.message) == ("FailedMount", "why")
    assert seen.unexplained
    other = Observed(reason="ImagePullBackOff", message="why")
    seen = observe(container(observed=other), deployment(), (), [waiting], now=NOW)
    assert seen.observed.reason == "ReplicasNotReady"


@pytest.mark.parametrize(
    ("name", "reason", "beside", "words"),
    [
        ("05-pod-unschedulable", "FailedScheduling", "Unschedulable", "Insufficient cpu"),
        ("05-pod-pvc-missing", "FailedScheduling", "Unschedulable", "persistentvolumeclaim"),
        ("05-pod-crashloop", "BackOff", "CrashLoopBackOff", "Back-off restarting failed container"),
        ("05-pod-liveness-failing", "Unhealthy", "", "Liveness probe failed"),
        ("05-pod-volume-configmap-missing", "FailedMount", "", "MountVolume.SetUp failed"),
    ],
)
def test_the_history_contains_warnings_other_than_the_status(
    name: str, reason: str, beside: str, words: str
) -> None:
    events = recorded.events(name)
    uids = {each.involved_object.uid for each in events}
    told = {each.reason: each.message for each in warnings(events, uids, beside=beside, now=NOW)}
    assert words in told[reason]
    assert told[reason].startswith("Pod ")
    # The history omits events that repeat the pod's state in the same words, and the reason of the status
    # itself.
    assert "Failed" not in told
    assert reason not in {each.reason for each in warnings(events, uids, beside=reason, now=NOW)}
    assert warnings(events, uids, beside="", now=NOW + timedelta(hours=1)) == ()
    assert warnings(events, (), beside="", now=NOW) == ()


def test_a_resolved_warning_is_not_reported() -> None:
    failed = event("FailedScheduling", 0)
    scheduled = event("Scheduled", 1, normal=True)
    assert [each.reason for each in warnings([failed], ["p"], beside="", now=NOW)] == ["FailedScheduling"]
    assert warnings([failed, scheduled], ["p"], beside="", now=NOW) == ()
    again = event("FailedScheduling", 2)
    assert len(warnings([failed, scheduled, again], ["p"], beside="", now=NOW)) == 1


def test_events_are_requested_for_pods_that_restart_or_do_not_run() -> None:
    crashing = [p for p in recorded.pods("05-pod-crashloop") if p.metadata.deletion_timestamp is None][-1]
    seen = observe(container(), deployment(), (), [crashing], now=NOW)
    assert (seen.troubled, seen.unexplained) == (crashing.metadata.name, ())
    assert observe(container(desired_state="stopped"), deployment(), (), [crashing], now=NOW).troubled == ""
    killed = [p for p in recorded.pods("05-pod-liveness-failing") if p.status.phase == "Running"]
    up_again = next(
        p
        for p in killed
        if p.status.container_statuses[0].ready and p.status.container_statuses[0].restart_count
    )
    assert observe(container(), deployment(), (), [up_again], now=NOW).troubled == up_again.metadata.name
    known = container(observed=Observed(restart_count=1))
    assert observe(known, deployment(), (), [up_again], now=NOW).troubled == ""


def test_several_replicas_with_one_claim_are_reported() -> None:
    def wanting(replicas: int, **volume: Any) -> Any:
        data = MountedVolume(**{"name": "data", "type": "persistent_volume_claim", **volume})
        return container(replicas=replicas, volume_mounts=(VolumeMount("data", "/data"),), volumes=(data,))

    once = wanting(2, access_mode="ReadWriteOnce")
    told = volumes_attachable(once)
    assert told is not None
    assert (told.status, told.reason) == ("Unknown", "ReadWriteOnce")
    assert '"data"' in told.message
    assert volumes_attachable(wanting(1, access_mode="ReadWriteOnce")) is None
    assert volumes_attachable(wanting(2, access_mode="ReadWriteMany")) is None
    assert volumes_attachable(wanting(2, type="secret")) is None
    failed = container(observed=Observed(reason="FailedAttachVolume", message="Multi-Attach error"))
    told = volumes_attachable(failed)
    assert told is not None
    assert (told.status, told.message) == ("False", "Multi-Attach error")
