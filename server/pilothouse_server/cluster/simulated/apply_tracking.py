"""Who manages which field (`metadata.managedFields`)."""

from __future__ import annotations

from typing import Any

from .resources import ResourceType

JsonObject = dict[str, Any]


class FieldTracker:
    """Keeps managedFields up to date for writes that are not applies."""

    def track_update(
        self,
        resource: ResourceType,
        before: JsonObject,
        after: JsonObject,
        manager: str,
        time: str,
        subresource: str = "",
    ) -> None:
        """Records in `after` that `manager` set the fields in which it differs from `before`."""
