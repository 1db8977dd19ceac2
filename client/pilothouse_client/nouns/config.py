"""Config maps and secrets; `pilothouse.config.v1.ConfigService` documents each call and its errors."""

from __future__ import annotations

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse_client.rpc import NounClient, Pages, Unary, Watch, whole
from pilothouse_client.transport import TransportT


class Config(NounClient[TransportT]):
    """`client.config`."""

    create_config_map = Unary(
        pb.CreateConfigMapRequest, pb.CreateConfigMapResponse, lambda answer: answer.config_map
    )
    get_config_map = Unary(pb.GetConfigMapRequest, pb.GetConfigMapResponse, lambda answer: answer.config_map)
    list_config_maps = Pages(
        pb.ListConfigMapsRequest, pb.ListConfigMapsResponse, lambda answer: answer.config_maps
    )
    # The responses also name the containers that restart.
    update_config_map = Unary(pb.UpdateConfigMapRequest, pb.UpdateConfigMapResponse, whole)
    delete_config_map = Unary(
        pb.DeleteConfigMapRequest, pb.DeleteConfigMapResponse, lambda answer: answer.config_map
    )
    create_secret = Unary(pb.CreateSecretRequest, pb.CreateSecretResponse, lambda answer: answer.secret)
    get_secret = Unary(pb.GetSecretRequest, pb.GetSecretResponse, lambda answer: answer.secret)
    list_secrets = Pages(pb.ListSecretsRequest, pb.ListSecretsResponse, lambda answer: answer.secrets)
    update_secret = Unary(pb.UpdateSecretRequest, pb.UpdateSecretResponse, whole)
    delete_secret = Unary(pb.DeleteSecretRequest, pb.DeleteSecretResponse, lambda answer: answer.secret)
    purge_secret = Unary(pb.PurgeSecretRequest, pb.PurgeSecretResponse, lambda answer: answer.purged)
    reveal_secret = Unary(pb.RevealSecretRequest, pb.RevealSecretResponse, whole)
    # Each change contains either a config map or a secret.
    watch_configs = Watch(pb.WatchConfigsRequest, pb.WatchConfigsResponse, lambda answer: answer.config)
    rotate_keys = Unary(pb.RotateKeysRequest, pb.RotateKeysResponse, whole)
