"""What ``pyipc cert`` is made of: names, certificates, the files that hold them, and what there is to tell of them."""
