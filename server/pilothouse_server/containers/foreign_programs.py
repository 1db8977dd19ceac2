"""Programs that others have added to a container's pods: the condition `ForeignPrograms`.

They count from the moment at which the template has them, under every drift policy: the status names them until
REPAIR has removed them. They are known by their names in the template, all that an observer reads of it.
"""

from __future__ import annotations

from pilothouse_server.containers.model import Container
from pilothouse_server.kubernetes.objects import WorkloadObject
from pilothouse_server.values.permitted_additions import PermittedAdditions
from pilothouse_server.values.resources import Condition

FOREIGN_PROGRAMS = "ForeignPrograms"


def foreign_programs(
    container: Container, workload: WorkloadObject | None, permitted: PermittedAdditions
) -> Condition | None:
    """Returns the condition; None where the template has our programs alone."""
    if workload is None:
        return None
    spec = workload.pod_template.spec
    ours = {container.spec.pod_container_name, *(each.name for each in container.spec.sidecars)}
    added = [each.name for each in spec.containers if each.name not in ours]
    ours = {init.name for init in container.spec.init_containers}
    added += [each.name for each in spec.init_containers if each.name not in ours]
    foreign = [name for name in added if not permitted.permit_program(name)]
    if not foreign:
        return None
    message = f"others have added programs to its pods: {', '.join(foreign)}"
    return Condition(FOREIGN_PROGRAMS, "True", "AddedByOthers", message)
