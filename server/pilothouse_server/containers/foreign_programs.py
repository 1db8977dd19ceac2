"""The condition `ForeignPrograms`: programs that others have added to the pods.

The condition holds as soon as the workload's template has such a program, under every drift policy, and names the
programs until REPAIR has removed them. Programs are recognised by their names, because an observer reads nothing else
of the template.
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
    """Returns the condition; None if the template has only the container's own and permitted programs."""
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
