"""Calls about several nouns; `pilothouse.watch.v1.WatchService` describes each call and its errors."""

from __future__ import annotations

from pilothouse.watch.v1 import watch_pb2 as pb
from pilothouse_client.rpc import NounClient, Pages, Stream, Unary, Watch, whole
from pilothouse_client.transport import TransportT


class Watches(NounClient[TransportT]):
    """`client.watches`. A change has the whole response as its `resource`, with the number of its `scope`."""

    get_overview = Unary(pb.GetOverviewRequest, pb.GetOverviewResponse, whole)
    search = Pages(pb.SearchRequest, pb.SearchResponse, lambda answer: answer.results)
    watch_events = Stream(pb.WatchEventsRequest, pb.WatchEventsResponse)
    watch = Watch(pb.WatchRequest, pb.WatchResponse, whole)
