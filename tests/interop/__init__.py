"""pyipc and real node-ipc programs, in both directions."""
