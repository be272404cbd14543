"""The malformed catalogue: what a peer may do wrong, and what comes of it, case by case.

Each module is a chapter, to be read as documentation; `runner` sends its cases to real servers. The same cases make the
page ``docs/reference/malformed.md``: ``python -m tests.battery.catalogue > docs/reference/malformed.md``.
"""
