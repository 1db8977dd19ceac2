"""The words of the database and the enums of the API, both ways."""

from __future__ import annotations

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.containers.model import DriftPolicy, ServiceType, Status, ValueFrom

STATUS: dict[Status, pb.ContainerStatus.ValueType] = {
    "pending": pb.CONTAINER_STATUS_PENDING,
    "running": pb.CONTAINER_STATUS_RUNNING,
    "paused": pb.CONTAINER_STATUS_PAUSED,
    "stopped": pb.CONTAINER_STATUS_STOPPED,
    "failed": pb.CONTAINER_STATUS_FAILED,
    "crash_loop_back_off": pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF,
}
STATUS_OF: dict[int, Status] = {number: word for word, number in STATUS.items()}
DRIFT: dict[DriftPolicy, pb.DriftPolicy.ValueType] = {
    "repair": pb.DRIFT_POLICY_REPAIR,
    "report": pb.DRIFT_POLICY_REPORT,
    "adopt": pb.DRIFT_POLICY_ADOPT,
}
DRIFT_OF: dict[int, DriftPolicy] = {number: word for word, number in DRIFT.items()}
VALUE_FROM: dict[ValueFrom, pb.EnvValueFrom.ValueType] = {
    "literal": pb.ENV_VALUE_FROM_LITERAL,
    "config_map": pb.ENV_VALUE_FROM_CONFIG_MAP,
    "secret": pb.ENV_VALUE_FROM_SECRET,
    "field_ref": pb.ENV_VALUE_FROM_FIELD_REF,
}
VALUE_FROM_OF: dict[int, ValueFrom] = {number: word for word, number in VALUE_FROM.items()}
SERVICE_TYPE: dict[ServiceType, pb.ServiceType.ValueType] = {
    "ClusterIP": pb.SERVICE_TYPE_CLUSTER_IP,
    "NodePort": pb.SERVICE_TYPE_NODE_PORT,
    "LoadBalancer": pb.SERVICE_TYPE_LOAD_BALANCER,
    "Headless": pb.SERVICE_TYPE_HEADLESS,
    "None": pb.SERVICE_TYPE_NONE,
}
SERVICE_TYPE_OF: dict[int, ServiceType] = {number: word for word, number in SERVICE_TYPE.items()}
IMAGE_STATUS = {
    "available": pb.IMAGE_STATUS_AVAILABLE,
    "deleted": pb.IMAGE_STATUS_DELETED,
    "error": pb.IMAGE_STATUS_ERROR,
}
