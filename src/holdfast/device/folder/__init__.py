"""The folder engine: a directory on disk to and from the operations of a group's log.

    scan -> snapshot -> drafts of operations      what changed here, sealed and recorded
    tree of the reducer -> plan -> apply          what changed elsewhere, fetched and put in place

`folder.Folder` is the front door; `ports` says what the engine asks of the network.
"""
