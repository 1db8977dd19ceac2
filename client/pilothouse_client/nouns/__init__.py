"""The nouns: one file each, one line an RPC. A noun is added by its file and by its property in
`client.Nouns`.

A method is named as the RPC, in snake case, without the noun itself: `CreateContainer` is
`containers.create`, `ListStatusHistory` is `containers.list_status_history`.
"""
