"""The battery: what is done to pyipc so that its promises are seen to hold.

Each row of it has a file, ``test_r01_...`` to ``test_r18_...``. All of them count instead of sampling: a `Ledger` has
every message that was sent, confirmed and handled, and the balance must be even. After each, what the program holds is
what it held before: `leak_gate`. How much is done is for one variable to say: see `sizes`.
"""
