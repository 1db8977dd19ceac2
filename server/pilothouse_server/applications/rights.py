"""The rights of a caller over the objects of each noun, for calls that write several nouns.

Each noun decides on a change by rights, which its own service makes from the settings and the caller's permissions. An
apply passes the same rights to the same operations, so it can make exactly the changes that its caller could make
object by object.
"""

from __future__ import annotations

from pilothouse_server.authorization.access import May
from pilothouse_server.config.operations.configs import Effect
from pilothouse_server.containers.config_readers import ConfigReaders
from pilothouse_server.containers.mounting import Mounter
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.guard.model import Keys
from pilothouse_server.namespaces.guarded import Guarded, Labelling
from pilothouse_server.network.operations import ServiceRights
from pilothouse_server.objects.operations import ObjectRights
from pilothouse_server.settings.model import Settings, allowed_hosts
from pilothouse_server.values.key_patterns import KeyPatterns


class NounRights:
    """Makes the rights of callers for each noun.

    `keys`: the annotations and labels that the guard allows or restricts. `guarded`: patterns of the keys of objects
    that require `namespace.security`. `namespaces`: the parts of a namespace that its own administrators may not
    change. `readers`: finds the readers of config maps and secrets. `mounter`: refuses deletions of volumes that pods
    need.
    """

    def __init__(self, settings: Settings, envelopes: Envelopes) -> None:
        self.envelopes = envelopes
        self.guarded = KeyPatterns(settings.guarded_object_keys, guarding=True)
        self.keys = Keys(
            KeyPatterns(settings.service_annotations),
            KeyPatterns(settings.guarded_pod_keys, guarding=True),
        )
        self.readers = ConfigReaders(self.keys.guarded)
        self.mounter = Mounter(self.keys)
        self.namespaces = Guarded(
            KeyPatterns(settings.guarded_namespace_keys, guarding=True),
            settings.namespace_pod_security,
            allowed_hosts(settings.namespace_allowed_hosts),
        )

    def labelling(self, may: May) -> Labelling:
        """Returns the rights over labels and annotations."""
        return Labelling(self.guarded, may)

    def effect(self, may: May) -> Effect:
        """Returns the rights over config maps and secrets, set so that a change restarts no container."""
        return Effect(self.readers, self.labelling(may))

    def services(self, may: May) -> ServiceRights:
        """Returns the rights over Services."""
        return ServiceRights(self.labelling(may), self.keys)

    def objects(self, may: May) -> ObjectRights:
        """Returns the rights over carried objects."""
        return ObjectRights(self.labelling(may), self.keys)
