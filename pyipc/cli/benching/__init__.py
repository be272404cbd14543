"""What ``pyipc bench`` is made of: a server, work for it, and figures."""
