"""The command ``pyipc``: sockets at hand, for people and for scripts.

Built from the public names of pyipc alone. `main` knows the commands, `console` is where they
write, `interruption` is how they end early, `exits` is how they end at all; each command is a
module of its own.
"""
