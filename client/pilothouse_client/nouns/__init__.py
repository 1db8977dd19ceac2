"""The nouns: one file each, one line for each RPC. A new noun needs its file and its property in `all_nouns.Nouns`.

A method has the RPC's name in snake case, without the noun itself: `CreateContainer` is
`containers.create`, `ListStatusHistory` is `containers.list_status_history`.
"""
