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

EPERM, ENOSYS = 1, 38
CLONE_THREAD = 0x10000
DENIED = {
    # socket, socketpair, io_uring_setup, fork, vfork, execve, execveat, kill, tkill, tgkill,
    # rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal, ptrace, process_vm_writev, mount,
    # unshare, setns, bpf, perf_event_open, add_key, keyctl, setpriority, prlimit64 aside
    "x86_64": (
        0xC000003E, 56,
        (41, 53, 425, 57, 58, 59, 322, 62, 200, 234, 129, 297, 424, 101, 311, 165, 272, 308, 321,
         298, 248, 250, 141),
    ),
    "aarch64": (
        0xC00000B7, 220,
        (198, 199, 425, 221, 281, 129, 130, 131, 138, 240, 424, 117, 271, 40, 97, 268, 280, 241,
         217, 219, 140),
    ),
}  # fmt: skip
"""Machine -> (its number for seccomp, number of `clone`, system calls that are denied)."""
CLONE3 = 435


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
        ("RLIMIT_NPROC", 64),
        ("RLIMIT_CORE", 0),
    ):
        which = getattr(resource, name)
        most = resource.getrlimit(which)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        try:
            resource.setrlimit(which, (value, value))
        except (ValueError, OSError):
            # some systems do not keep all of them
            continue


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
    for path, allowed in [(scratch, rights), *((p, READ_FILE | READ_DIR) for p in readable)]:
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
    machine, clone, denied = DENIED[platform.machine()]
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, refuse, absent = 0x7FFF0000, 0x80000000, 0x50000 | EPERM, 0x50000 | ENOSYS
    program = [
        (load, 0, 0, 4),  # which machine's system calls
        (equal, 1, 0, machine),
        (give, 0, 0, kill),
        (load, 0, 0, 0),  # which system call
        (at_least, 0, 1, 0x40000000),  # those of x32
        (give, 0, 0, kill),
        (equal, 0, 1, CLONE3),  # libc then falls back to clone, whose flags can be looked at
        (give, 0, 0, absent),
        (equal, 0, 4, clone),
        (load, 0, 0, 16),  # its flags
        (any_bit, 1, 0, CLONE_THREAD),
        (give, 0, 0, refuse),
        (give, 0, 0, allow),
    ]
    for number in denied:
        program += [(equal, 0, 1, number), (give, 0, 0, refuse)]
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
