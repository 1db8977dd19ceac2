"""The overview and the search: value ↔ protobuf."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.watch.v1 import watch_pb2 as pb
from pilothouse_server.dashboard.model import (
    Count,
    Found,
    Overview,
    OverviewQuestion,
    SeenNamespace,
    UsagePoint,
    Wrong,
)
from pilothouse_server.namespaces.messages import QUOTA
from pilothouse_server.rpc.converter import AnswerConverter

FOUND = AnswerConverter(Found, pb.FoundResource)
WRONG = AnswerConverter(Wrong, pb.WrongResource)
_PREFIX = "NOUN_"


def word_of(noun: pb.Noun.ValueType) -> str:
    """Returns the word of a noun: `container`."""
    return pb.Noun.Name(noun).removeprefix(_PREFIX).lower()


def noun_of(word: str) -> pb.Noun.ValueType:
    """Returns the noun of a word."""
    return pb.Noun.Value(f"{_PREFIX}{word.upper()}")


def overview(found: Overview, question: OverviewQuestion) -> pb.GetOverviewResponse:
    """Returns the message of an overview."""
    places = {each.id: each for each in found.namespaces}
    # A namespace that was created between two statements is in the next overview.
    counts = [each for each in found.counts if each.namespace_id in places]
    by_namespace, by_cluster = defaultdict(list), defaultdict(list)
    for each in counts:
        by_namespace[each.namespace_id].append(each)
        by_cluster[places[each.namespace_id].cluster].append(each)
    shown = found.namespaces[: question.most_namespaces]
    wrong = sum(number for place, number in found.wrong.items() if place in places)
    return pb.GetOverviewResponse(
        counts=_counts(counts),
        namespaces=[_namespace(each, by_namespace[each.id], found) for each in shown],
        more_namespaces=len(found.namespaces) - len(shown),
        clusters=_clusters(found, by_cluster, places),
        wrong=map(WRONG.to_proto, found.worst),
        more_wrong=max(0, wrong - len(found.worst)),
        time=_time(found.time),
    )


def _namespace(seen: SeenNamespace, counts: Iterable[Count], found: Overview) -> pb.NamespaceOverview:
    used = found.used.get(seen.id)
    points = [each for each in found.usage if each.namespace_id == seen.id]
    shown = pb.NamespaceOverview(
        namespace=seen.name,
        cluster=seen.cluster,
        counts=_counts(counts),
        wrong=found.wrong.get(seen.id, 0),
        usage=_sums(points),
    )
    if used is not None:
        shown.used.CopyFrom(QUOTA.to_proto(used))
        if seen.quota is not None:
            shown.quota.CopyFrom(QUOTA.to_proto(seen.quota))
    return shown


def _clusters(
    found: Overview, by_cluster: Mapping[str, Iterable[Count]], places: Mapping[int, SeenNamespace]
) -> list[pb.ClusterOverview]:
    members = defaultdict(list)
    for each in found.namespaces:
        members[each.cluster].append(each)
    clusters = []
    for name, inside in sorted(members.items()):
        points = [
            each
            for each in found.usage
            if each.namespace_id in places and places[each.namespace_id].cluster == name
        ]
        shown = pb.ClusterOverview(
            cluster=name,
            namespaces=len(inside),
            counts=_counts(by_cluster.get(name, ())),
            usage=_sums(points),
        )
        if inside[0].stale_since is not None:
            shown.stale_since.CopyFrom(_time(inside[0].stale_since))
        clusters.append(shown)
    return clusters


def _counts(counts: Iterable[Count]) -> list[pb.StatusCount]:
    sums: defaultdict[tuple[pb.Noun.ValueType, str], int] = defaultdict(int)
    for each in counts:
        sums[noun_of(each.noun), each.status.upper()] += each.count
    return [
        pb.StatusCount(noun=noun, status=status, count=number)
        for (noun, status), number in sorted(sums.items())
    ]


def _sums(points: Iterable[UsagePoint]) -> list[pb.UsageSum]:
    sums: defaultdict[datetime, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for each in points:
        cpu, memory = sums[each.at]
        sums[each.at] = cpu + each.cpu_cores, memory + each.memory_bytes
    return [
        pb.UsageSum(time=_time(at), cpu_cores=cpu, memory_bytes=memory)
        for at, (cpu, memory) in sorted(sums.items())
    ]


def _time(moment: datetime) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(moment)
    return time
