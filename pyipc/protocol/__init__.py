"""The pure half of pyipc: what goes over the wire and what it means.

Nothing in here opens a socket, starts a task, reads a clock or draws a random number; whatever of
that is needed is passed in. The modules: `framing` (options), `frames` (bytes to frames), `codec`
(frames to values), `messages` (the vocabulary), `conversation`, `framed`, `raw` (one side's state),
`addresses`, `patterns`.
"""
