"""Prints the page: ``python -m tests.battery.catalogue > docs/reference/malformed.md``."""

from __future__ import annotations

from tests.battery.catalogue.page import page

if __name__ == "__main__":
    print(page(), end="")
