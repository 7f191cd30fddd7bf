"""The inside of `trainer.sandbox`: a program of its own, of the standard library alone.

It reads what to run from standard input, shuts itself in, runs it, and says on standard output how
that ended. Numbers are those of Linux's headers (linux/landlock.h, linux/seccomp.h, asm/unistd.h).
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
import sys

NOT_SHUT_IN = 97

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
ALL_OF_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
"""Every right over files that a version of Landlock knows; later ones add none that matter here."""

MAKE_FILE, REMOVE_FILE, TRUNCATE = 1 << 8, 1 << 5, 1 << 14
IN_SCRATCH = WRITE_FILE | READ_FILE | READ_DIR | MAKE_FILE | REMOVE_FILE | TRUNCATE
"""No folders: a chain of them is deeper than anything that cleans up can follow."""

EPERM, ENOSYS = 1, 38
EVERYWHERE = (
    # io_uring_setup, pidfd_send_signal, pidfd_getfd, process_madvise, fchmodat2, setxattrat,
    # removexattrat, file_setattr
    425, 424, 438, 440, 452, 463, 466, 469,
)  # fmt: skip
"""Denied, with the same number on every machine."""
DENIED = {
    # sockets: socket, socketpair
    # processes: fork, vfork, execve, execveat, unshare, setns
    # other processes: kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, ptrace,
    # process_vm_writev, setpriority, sched_setparam, sched_setscheduler, sched_setaffinity,
    # sched_setattr, ioprio_set, migrate_pages, move_pages
    # what Landlock leaves of files: the families of chmod, chown, utime, setxattr and removexattr;
    # truncate, chroot, mount
    # what outlives a process: shared memory, semaphores, message queues, keys; bpf, perf_event_open
    "x86_64": (
        41, 53,
        57, 58, 59, 322, 272, 308,
        62, 200, 234, 129, 297, 101, 311, 141, 142, 144, 203, 314, 251, 256, 279,
        90, 91, 268, 92, 93, 94, 260, 132, 235, 261, 280, 188, 189, 190, 197, 198, 199,
        76, 161, 165,
        29, 30, 31, 64, 65, 220, 66, 68, 69, 70, 71, 240, 241, 248, 249, 250, 321, 298,
    ),
    "aarch64": (
        198, 199,
        221, 281, 97, 268,
        129, 130, 131, 138, 240, 117, 271, 140, 118, 119, 122, 274, 30, 238, 239,
        52, 53, 54, 55, 88, 5, 6, 7, 14, 15, 16,
        45, 51, 40,
        194, 196, 195, 190, 193, 192, 191, 186, 189, 188, 187, 180, 181, 217, 218, 219, 280, 241,
    ),
}  # fmt: skip
"""Machine -> system calls that are denied."""
SPECIAL = {"x86_64": (0xC000003E, 56, 302, 72), "aarch64": (0xC00000B7, 220, 261, 25)}
"""Machine -> its number for seccomp; `clone`, `prlimit64`, `fcntl`, of which some uses are denied.
"""
CLONE3, CLONE_THREAD = 435, 0x10000
F_SETOWN, F_SETSIG, F_SETOWN_EX = 8, 10, 15
"""They send signals to other processes."""
CAPABILITIES_3 = 0x20080522


def main() -> None:
    """Run what standard input holds."""
    wanted = json.loads(sys.stdin.buffer.read())
    verdict = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    _limit(wanted)
    if wanted["shut_in"]:
        try:
            _no_capabilities()
            _landlock(wanted["scratch"])
            _seccomp()
        except (OSError, KeyError):
            os._exit(NOT_SHUT_IN)
    token, code = wanted.pop("token"), wanted.pop("code")
    try:
        exec(compile(code, "program", "exec"), {"__name__": "__main__"})  # noqa: S102
        said = "passed"
    except BaseException as error:
        said = type(error).__name__
    os.write(verdict, f"{token} {said}".encode())
    os._exit(0)


def _limit(wanted: dict[str, int]) -> None:
    try:
        import resource
    except ImportError:
        return
    for name, value in (
        ("RLIMIT_CPU", wanted["seconds"]),
        ("RLIMIT_AS", wanted["memory"]),
        ("RLIMIT_FSIZE", wanted["file_size"]),
        ("RLIMIT_NOFILE", wanted["open_files"]),
        ("RLIMIT_CORE", 0),
        # counts all that the user runs; where the process is shut in it starts none anyway
        *(() if wanted["shut_in"] else (("RLIMIT_NPROC", 64),)),
    ):
        which = getattr(resource, name)
        most = resource.getrlimit(which)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        try:
            resource.setrlimit(which, (value, value))
        except (ValueError, OSError):
            # some systems do not keep all of them
            continue


def _no_capabilities() -> None:
    """Root is then as anybody: it may lift no limit and do nothing to the machine."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITIES_3, 0), 8)
    none = ctypes.create_string_buffer(24)
    _checked(libc.capset(header, none))


def _landlock(scratch: str) -> None:
    """Allow writing below `scratch`, reading below the interpreter and system libraries only."""
    libc = ctypes.CDLL(None, use_errno=True)
    abi = _checked(libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, 1))
    rights = ALL_OF_ABI[min(abi, max(ALL_OF_ABI))]
    ruleset = ctypes.create_string_buffer(struct.pack("=Q", rights), 8)
    made = _checked(libc.syscall(LANDLOCK_CREATE_RULESET, ruleset, 8, 0))
    # what a program is run by may stand anywhere; its own folders and the system's are enough
    readable = {sys.prefix, sys.base_prefix, sys.exec_prefix, "/usr", "/lib", "/lib64"}
    readable |= {"/dev/null", "/dev/urandom", "/etc/localtime"}
    for path, allowed in [
        (scratch, rights & IN_SCRATCH),
        *((p, READ_FILE | READ_DIR) for p in readable),
    ]:
        try:
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not os.path.isdir(path):  # noqa: PTH112
            allowed &= READ_FILE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, folder), 12)
        _checked(libc.syscall(LANDLOCK_ADD_RULE, made, 1, rule, 0))
        os.close(folder)
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(libc.syscall(LANDLOCK_RESTRICT_SELF, made, 0))
    os.close(made)


def _seccomp() -> None:
    """Deny the system calls of DENIED, other processes (threads may begin), and other machines'."""
    machine, clone, prlimit, fcntl = SPECIAL[platform.machine()]
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    number, which, first, second = 0, 4, 16, 24  # where they stand; arguments by their low halves
    allow, kill, refuse, absent = 0x7FFF0000, 0x80000000, 0x50000 | EPERM, 0x50000 | ENOSYS
    program = [
        (load, 0, 0, which),
        (equal, 1, 0, machine),
        (give, 0, 0, kill),
        (load, 0, 0, number),
        (at_least, 0, 1, 0x40000000),  # those of x32
        (give, 0, 0, kill),
        (equal, 0, 1, CLONE3),  # libc then falls back to clone, whose flags can be looked at
        (give, 0, 0, absent),
        (equal, 0, 4, clone),
        (load, 0, 0, first),  # its flags
        (any_bit, 1, 0, CLONE_THREAD),
        (give, 0, 0, refuse),
        (give, 0, 0, allow),
        (equal, 0, 4, prlimit),
        (load, 0, 0, first),  # whose limits: 0 for its own
        (equal, 1, 0, 0),
        (give, 0, 0, refuse),
        (give, 0, 0, allow),
        (equal, 0, 6, fcntl),
        (load, 0, 0, second),  # what it is to do
        (equal, 3, 0, F_SETOWN),
        (equal, 2, 0, F_SETSIG),
        (equal, 1, 0, F_SETOWN_EX),
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
    ]
    for denied in (*EVERYWHERE, *DENIED[platform.machine()]):
        program += [(equal, 0, 1, denied), (give, 0, 0, refuse)]
    program.append((give, 0, 0, allow))
    raw = b"".join(struct.pack("=HBBI", *step) for step in program)
    steps = ctypes.create_string_buffer(raw, len(raw))
    pointer = ctypes.c_char * 16
    filter_ = pointer.from_buffer_copy(
        struct.pack("@HxxxxxxQ", len(program), ctypes.addressof(steps))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    main()
