"""The pure half: bytes in, events out; no socket, no clock."""
