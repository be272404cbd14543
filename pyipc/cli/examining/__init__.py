"""What ``pyipc doctor`` is made of: findings about addresses, this machine and who is there."""
