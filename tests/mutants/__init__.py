"""Builds of pyipc that are broken on purpose, and the tests that notice.

A suite of tests that passes says little of what it would notice. So each mutant here is a mistake that somebody could
make in one place of the code, with the one test that has to fail then. ``python -m tests.mutants`` makes one mistake
after the other, in a copy of the package, and sees to it that the test does.
"""
