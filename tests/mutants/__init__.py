"""Builds of pyipc that are broken on purpose, and the tests that notice.

A suite of tests that passes says little of what it would notice. So each `Mutant` here is a mistake that somebody could
make, in one place of the code, together with the one test that has to fail with it. ``python -m tests.mutants`` breaks one
copy of the package after the other and sees to it that it does.
"""
