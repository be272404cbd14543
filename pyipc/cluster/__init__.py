"""Workers: processes that are forked onto pyipc, share addresses, and are kept alive."""
