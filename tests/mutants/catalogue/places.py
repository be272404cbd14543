"""Mistakes with socket files and pipes: whose they are, and what may be removed."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS"]

_SAFE_PATHS: Final = "pyipc/transports/safe_paths.py"

MUTANTS: Final = (
    Mutant(
        name="unlink-always",
        mistake="a server that starts removes whatever socket is at its path, also that of a live server",
        file=_SAFE_PATHS,
        old="            live = socket_is_live(self.path)\n",
        new="            live = False\n",
        caught_by="tests/test_safe_paths.py::test_a_live_server_without_a_lock_is_left_alone",
    ),
    Mutant(
        name="unlink-the-successor",
        mistake="a server that closes removes what is at its path by then, also the socket of its successor",
        file=_SAFE_PATHS,
        old="        if _identity(os.stat(name, dir_fd=directory, follow_symlinks=False)) == identity:\n",
        new="        if os.stat(name, dir_fd=directory, follow_symlinks=False):\n",
        caught_by="tests/test_safe_paths.py::test_the_first_server_never_removes_the_socket_of_the_second",
    ),
    Mutant(
        name="unlink-any-file",
        mistake="whatever is at the path is removed, also what is no socket",
        file=_SAFE_PATHS,
        old="""\
        if not stat.S_ISSOCK(info.st_mode) or info.st_uid != os.geteuid():
            raise self._foreign(self._name, info)
""",
        new="",
        caught_by="tests/test_safe_paths.py::test_what_is_no_socket_is_left_alone",
    ),
    Mutant(
        name="nothing-removed",
        mistake="a server that closes leaves its socket and its lock file behind",
        file=_SAFE_PATHS,
        old="                    _remove(self._name, self._bound, directory)\n",
        new="                    pass\n",
        caught_by="tests/test_safe_paths.py::test_our_own_dead_socket_is_replaced",
    ),
    Mutant(
        name="fork-cleans-up",
        mistake="a fork removes the socket of the server that it comes from",
        file=_SAFE_PATHS,
        old="            if lock >= 0 and self._process == os.getpid():\n",
        new="            if lock >= 0:\n",
        caught_by="tests/test_safe_paths.py::test_a_forked_copy_of_a_server_removes_nothing",
    ),
    Mutant(
        name="lock-shared",
        mistake="two servers may hold the lock of one path",
        file=_SAFE_PATHS,
        old="                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        new="                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)\n",
        caught_by="tests/test_safe_paths.py::test_a_live_server_with_a_lock_is_left_alone",
    ),
    Mutant(
        name="lock-of-a-file-that-is-gone",
        mistake="a lock counts although its file was removed before it was taken",
        file=_SAFE_PATHS,
        old="            if now is not None and _identity(now) == _identity(info):\n",
        new="            if info is not None:\n",
        caught_by="tests/test_safe_paths.py::test_a_lock_that_is_removed_while_it_is_taken_proves_nothing",
    ),
    Mutant(
        name="lock-let-go",
        mistake="the lock is let go once the socket is bound",
        file=_SAFE_PATHS,
        old="        self._bound = _identity(info)\n",
        new="""\
        self._bound = _identity(info)
        import fcntl

        fcntl.flock(self._lock, fcntl.LOCK_UN)
""",
        caught_by="tests/test_safe_paths.py::test_a_live_server_with_a_lock_is_left_alone",
    ),
    Mutant(
        name="symlink-followed",
        mistake="the directory of a socket may be a symbolic link, which somebody can turn elsewhere",
        file=_SAFE_PATHS,
        old="        return os.open(name, _directory_flags() | os.O_NOFOLLOW, dir_fd=parent)\n",
        new="        return os.open(name, _directory_flags(), dir_fd=parent)\n",
        caught_by="tests/test_safe_paths.py::test_a_directory_that_is_a_link_is_refused",
    ),
    Mutant(
        name="lock-symlink-followed",
        mistake="a lock file may be a symbolic link, by which a file elsewhere is made",
        file=_SAFE_PATHS,
        old="os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC",
        new="os.O_CREAT | os.O_CLOEXEC",
        caught_by="tests/test_safe_paths.py::test_a_lock_that_is_no_file_is_left_alone[dangling symlink]",
    ),
    Mutant(
        name="directory-of-anybody",
        mistake="the directory of bare names may belong to another user",
        file=_SAFE_PATHS,
        old="        if info.st_uid != os.geteuid():\n",
        new="        if info.st_uid < 0:\n",
        caught_by="tests/test_safe_paths.py::test_a_directory_of_somebody_else_is_refused[patched-448]",
    ),
    Mutant(
        name="directory-open-to-others",
        mistake="the directory of bare names may be open to other users",
        file=_SAFE_PATHS,
        old="        if info.st_mode & _OTHERS:\n",
        new="        if info.st_mode & _WRITABLE_BY_OTHERS:\n",
        caught_by="tests/test_safe_paths.py::test_a_private_directory_is_open_to_nobody_else",
    ),
    Mutant(
        name="directory-others-may-write",
        mistake="a socket may be where others can replace it",
        file=_SAFE_PATHS,
        old="    if info.st_mode & _WRITABLE_BY_OTHERS and not info.st_mode & stat.S_ISVTX:\n",
        new="    if info.st_mode & stat.S_IWGRP and info.st_mode & stat.S_ISVTX:\n",
        caught_by="tests/test_safe_paths.py::test_a_directory_in_which_others_may_write_is_refused",
    ),
    Mutant(
        name="socket-for-everybody",
        mistake="every user may connect to a socket file",
        file="pyipc/transports/unix.py",
        old="_DEFAULT_MODE: Final = 0o600\n",
        new="_DEFAULT_MODE: Final = 0o666\n",
        caught_by="tests/test_unix_transport.py::test_an_explicit_path",
    ),
    Mutant(
        name="mode-not-set",
        mistake="the mode of a socket file is what the umask makes of it",
        file=_SAFE_PATHS,
        old="            os.chmod(self._name, mode, dir_fd=self._directory)\n",
        new="            pass\n",
        caught_by="tests/test_safe_paths.py::test_the_socket_has_the_mode_before_anybody_can_connect",
    ),
    Mutant(
        name="pipe-not-the-first",
        mistake="a server adds an instance to a pipe that somebody else has made",
        file="pyipc/transports/pipe_backlog.py",
        old=" | (_FILE_FLAG_FIRST_PIPE_INSTANCE if first else 0),\n",
        new=",\n",
        caught_by="tests/test_pipe_flags.py::test_a_name_that_is_taken",
    ),
    Mutant(
        name="tls-forgotten",
        mistake="a Unix socket that was inherited is served without the encryption that was asked for",
        file="pyipc/transports/inherited.py",
        old="        if tls is not None:  # of an address that does not tell what it is\n",
        new="        if tls is False:\n",
        caught_by="tests/test_claims.py::test_tls_over_an_inherited_unix_socket",
    ),
    Mutant(
        name="pipe-for-the-network",
        mistake="clients on other machines may connect to a pipe",
        file="pyipc/transports/pipe_backlog.py",
        old="        _PIPE_REJECT_REMOTE_CLIENTS,\n        _PIPE_UNLIMITED",
        new="        0,\n        _PIPE_UNLIMITED",
        caught_by="tests/test_pipe_flags.py::test_how_instances_are_created",
    ),
)
