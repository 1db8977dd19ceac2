"""Services; `pilothouse.network.v1.NetworkService` describes each call and its errors."""

from __future__ import annotations

from pilothouse.network.v1 import network_pb2 as pb
from pilothouse_client.rpc import NounClient, Pages, Unary, Watch, whole
from pilothouse_client.transport import TransportT


class Network(NounClient[TransportT]):
    """`client.network`."""

    create_service = Unary(pb.CreateServiceRequest, pb.CreateServiceResponse, lambda answer: answer.service)
    get_service = Unary(pb.GetServiceRequest, pb.GetServiceResponse, lambda answer: answer.service)
    list_services = Pages(pb.ListServicesRequest, pb.ListServicesResponse, lambda answer: answer.services)
    update_service = Unary(pb.UpdateServiceRequest, pb.UpdateServiceResponse, lambda answer: answer.service)
    delete_service = Unary(pb.DeleteServiceRequest, pb.DeleteServiceResponse, lambda answer: answer.service)
    watch_services = Watch(pb.WatchServicesRequest, pb.WatchServicesResponse, lambda answer: answer.service)
    import_services = Unary(pb.ImportServicesRequest, pb.ImportServicesResponse, whole)
