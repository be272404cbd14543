"""What people and programs get to see: where it is written, as what text, and how fast."""
