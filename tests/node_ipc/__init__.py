"""``pyipc.node_ipc`` by itself: both sides are ported programs."""
