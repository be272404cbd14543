"""What ``pyipc tap`` is made of: bytes passed on, cut into frames, and told."""
