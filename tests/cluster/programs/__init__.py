"""Programs that workers, or primaries, of the tests run."""
