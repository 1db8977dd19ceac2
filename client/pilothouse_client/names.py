"""Names of the values of enums, without the prefix that protobuf's style requires."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor


def enum_prefix(name: str) -> str:
    """Returns the prefix of an enum's values: `ContainerStatus` gives `CONTAINER_STATUS_`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper() + "_"


@functools.cache
def labels_of(descriptor: EnumDescriptor) -> Mapping[int, str]:
    """Returns the names of an enum's values by their numbers; empty for `UNSPECIFIED`."""
    prefix = enum_prefix(descriptor.name)
    labels = {value.number: value.name.removeprefix(prefix) for value in descriptor.values}
    return {number: "" if label == "UNSPECIFIED" else label for number, label in labels.items()}


def enum_label(message: Any, field: str) -> str:
    """Returns the value of a message's enum field by name, such as `RUNNING`; an unknown number as it is.

    In Python a field of an enum is a number: `enum_label(container, "status")` is its name, without the prefix.

    >>> enum_label(Container(status=CONTAINER_STATUS_RUNNING), "status")
    'RUNNING'
    """
    number = getattr(message, field)
    return labels_of(message.DESCRIPTOR.fields_by_name[field].enum_type).get(number, str(number))
