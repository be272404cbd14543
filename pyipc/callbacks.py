"""Callbacks for connecting and disconnecting: lists of functions, plain or async."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Generic, TypeVar

from pyipc.nursery import errors_told

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Callbacks"]

T = TypeVar("T")
logger: logging.Logger = logging.getLogger("pyipc.callbacks")


class Callbacks(Generic[T]):
    """Functions that want to be told, in order of registration.

    Args:
        name: What they are called in logs.
    """

    __slots__ = ("_functions", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._functions: list[Callable[[T], object]] = []

    def __len__(self) -> int:
        return len(self._functions)

    def add(self, function: Callable[[T], object]) -> Callable[[T], object]:
        """Tell ``function`` from now on.

        Raises:
            TypeError: It cannot be called.
        """
        if not callable(function):
            raise TypeError(f"{self._name} takes a function of one argument, not {function!r}")
        self._functions.append(function)
        return function

    async def call(self, about: T) -> None:
        """Tell everybody, one after the other. What one raises is logged and keeps nobody else from it."""
        for function in self._functions:
            with errors_told(self._tell):
                result = function(about)
                if inspect.isawaitable(result):
                    await result

    def _tell(self, error: Exception) -> None:
        logger.error("an %s callback failed", self._name, exc_info=error)
