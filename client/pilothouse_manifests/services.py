"""A Service's type, as it is called here and there.

Headless is no type of the API but a ClusterIP Service without an address.
"""

from __future__ import annotations

import re
from typing import Any

HEADLESS = "Headless"
TYPES = ("ClusterIP", "NodePort", "LoadBalancer")

_NO_ADDRESS = "None"
# A pod names its port by an IANA service name. A Service names its port by a DNS label of up to 63 characters.
_POD_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")


def is_pod_port_name(name: str) -> bool:
    """Whether a pod's port may have this name of a Service's port; the platform leaves it out there otherwise."""
    return _POD_PORT_NAME.fullmatch(name) is not None


def service_type(stated: str, cluster_ip: str) -> str:
    """Our word for a Service of this type (by default ClusterIP) and address."""
    return HEADLESS if cluster_ip == _NO_ADDRESS else stated or TYPES[0]


def type_fields(type_: str) -> dict[str, Any]:
    """The fields of a Service's spec that make it one of this type."""
    if type_ == HEADLESS:
        return {"type": TYPES[0], "clusterIP": _NO_ADDRESS}
    return {"type": type_}
