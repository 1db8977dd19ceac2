"""Revisions: the newest desired states of a resource, each stored whole in the form of its noun.

A revision is written by the statement that changes the resource: by `write_container` and `update_container` for a
container, and by the trigger `note_revision` for a Service, an object, a volume, a config map and a secret, whose
definition lists the fields. Another noun calls `write_revision` of `repository`. The revisions go with their resource.

A revision has no value of a secret. Those are encrypted in rows of their own, for their resource and its revision, and
go with the revision. A secret's row has its present values; when they change, the former ones are kept with the last
revision that had them. So revision 3 of a secret has the values of the first kept row from 3 on, or the present ones
(`kept_values` of `operations`).
"""
