"""Node's own channel between a parent and its child, spoken from either end.

A Node program can be a worker of a cluster here, and a program of pyipc the child, or the cluster worker, of a Node
program. What is said over the channel is what Node 20 says and expects; no package is needed over there.

Both ends: `lines` is what a line means; `channel` moves lines, with its `channel_link` for connections and its
`handles` for sockets.

The primary of Node workers: `spawning`, `process`, `listening`, `courier`, and ``preloaded.cjs``, which runs in them.

The worker of a Node primary: `invited`, `joining`, `worker`; whom it has above itself are `parent` and `primary`.
`patience` lets messages wait; `mailbox` and `places` are about listening, with `leftovers` of others out of the way;
`orphan` is its end when the primary is gone.
"""
