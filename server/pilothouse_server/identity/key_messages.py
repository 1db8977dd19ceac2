"""API keys and service accounts: value → protobuf."""

from __future__ import annotations

from pilothouse.identity.v1 import api_keys_pb2 as pb
from pilothouse_server.identity.model import ApiKey, ServiceAccount
from pilothouse_server.rpc.converter import AnswerConverter, Differences


def _hidden(value: ApiKey) -> int:
    return 0 if value.namespace_ids is None else len(value.namespace_ids) - len(value.namespaces)


API_KEY = AnswerConverter(
    ApiKey,
    pb.ApiKey,
    Differences(
        names={
            "api_key_id": "uid",
            "expire_time": "expires_at",
            "last_use_time": "last_used_at",
            "last_use_address": "last_used_ip",
            "rotate_time": "rotated_at",
        },
        computed={"hidden_namespaces": _hidden},
        struct_only=(
            "id",
            "user_id",
            "namespace_ids",
            "of_account",
            "account_namespace",
            "account_namespace_id",
            "kept_to",
        ),
    ),
)
SERVICE_ACCOUNT = AnswerConverter(
    ServiceAccount, pb.ServiceAccount, Differences(struct_only=("id", "namespace_id"))
)
