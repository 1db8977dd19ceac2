"""Revisions: the newest desired states of a resource, each stored whole in the form of its noun.

The statement that changes a resource also writes its revision. For containers that is done by `write_container` and
`update_container`. For Services, objects, volumes, config maps and secrets the trigger `note_revision` does it; its
definition lists the fields. Other nouns call `write_revision` of `repository`. The revisions are deleted with their
resource.

A revision contains no value of a secret. Values are encrypted in separate rows, bound to their resource and its
revision, and are deleted with the revision. A secret's row has its present values. When these change, the previous
values are stored with the last revision that had them. So revision 3 of a secret has the values of the first stored row
from revision 3 on, or the present values if there is none (`kept_values` of `operations`).
"""
