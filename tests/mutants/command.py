"""What ``python -m tests.mutants`` does."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from tests.mutants.catalogue import CATALOGUE, MUTANTS
from tests.mutants.mutant import StaleMutant, broken
from tests.mutants.page import page
from tests.mutants.runner import WORKERS, Result, Verdict, catch_all, check_sound, copy_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.mutants.mutant import Mutant

__all__ = ["main", "try_all"]

ROOT: Final = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str]) -> int:
    """Try the mutants that are named, or all; the status is 1 if one was not caught."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description="Break pyipc on purpose, and see whether the tests notice."
    )
    parser.add_argument("names", nargs="*", metavar="name", help="a mutant; without names all of them")
    parser.add_argument("--markdown", action="store_true", help="print the page of the documentation, and try nothing")
    given = parser.parse_args(arguments)
    if given.markdown:
        print(page(CATALOGUE), end="")
        return 0
    known = {mutant.name: mutant for mutant in MUTANTS}
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"there is no mutant {', '.join(unknown)}; there are {', '.join(known)}")
    return trio.run(try_all, ROOT, [known[name] for name in given.names] or MUTANTS)


async def try_all(root: Path, mutants: Sequence[Mutant]) -> int:
    """Try mutants of a repository, and print what came of them; return the exit status.

    Cancellation: what runs is ended.
    """
    began = time.perf_counter()
    try:
        for mutant in mutants:
            broken(mutant, root)
    except StaleMutant as stale:
        print(stale)
        return 1
    results: list[Result] = []

    def tell(result: Result) -> None:
        results.append(result)
        mutant = result.mutant
        print(f"{result.verdict.value:8}  {result.seconds:5.1f} s  {mutant.name:36}  {mutant.caught_by}", flush=True)

    with tempfile.TemporaryDirectory(prefix="pyipc-mutants-") as place:
        trees = [copy_tree(root, Path(place)) for _ in range(WORKERS)]
        if trouble := await check_sound(trees[0], mutants):
            print(f"{trouble}\nthe tests do not pass on the sound build, so nothing was broken", flush=True)
            return 1
        print(f"sound     {time.perf_counter() - began:5.1f} s  their tests pass", flush=True)
        await catch_all(trees, mutants, tell)
    missed = [result for result in results if result.verdict is not Verdict.CAUGHT]
    for result in missed:
        print(f"\n{'-' * 20} {result.mutant.name}: {result.verdict.value}\n{result.mutant.mistake}\n\n{result.why}")
    print(f"{len(results) - len(missed)} of {len(results)} caught, in {time.perf_counter() - began:.0f} s")
    return 1 if missed else 0
