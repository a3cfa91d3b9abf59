"""The system calls that a Python program may make, with their numbers on x86-64 and on 64-bit Arm.

A list of what is allowed, not of what is forbidden: a call that a later kernel adds is refused until someone has
thought about it. What depends on a call's arguments stands in `seccomp`.
"""

from __future__ import annotations

import errno
import platform

X86_64, AARCH64 = 0xC000003E, 0xC00000B7  # how the kernel names them to a filter: AUDIT_ARCH_*
NATIVE = {"x86_64": X86_64, "amd64": X86_64, "aarch64": AARCH64, "arm64": AARCH64}  # by what uname calls the machine

# name, number on x86-64, number on Arm; a dash where that machine lacks it
_ALLOWED = """
# memory and threads of one process
mmap 9 222; munmap 11 215; mprotect 10 226; mremap 25 216; madvise 28 233; brk 12 214; msync 26 227; futex 202 98;
set_robust_list 273 99; get_robust_list 274 100; set_tid_address 218 96; rseq 334 293; restart_syscall 219 128;
sched_yield 24 124; sched_getaffinity 204 123; sched_getparam 143 121; sched_getscheduler 145 120;
sched_get_priority_max 146 125; sched_get_priority_min 147 126; getcpu 309 168;
# open files
read 0 63; write 1 64; readv 19 65; writev 20 66; close 3 57; pread64 17 67; pwrite64 18 68; preadv 295 69; pwritev
296 70; preadv2 327 286; pwritev2 328 287; lseek 8 62; fstat 5 80; close_range 436 436; dup 32 23; dup2 33 -; dup3
292 24; pipe 22 -; pipe2 293 59; ftruncate 77 46; fallocate 285 47; fsync 74 82; fdatasync 75 83;
fadvise64 221 223; flock 73 32; sendfile 40 71; copy_file_range 326 285; fchmod 91 52; fstatfs 138 44; fgetxattr 193
10; flistxattr 196 13; getdents 78 -; getdents64 217 61; poll 7 -; ppoll 271 73; select 23 -; pselect6 270 72;
epoll_create 213 -; epoll_create1 291 20; epoll_ctl 233 21; epoll_wait 232 -; epoll_pwait 281 22; eventfd 284 -;
eventfd2 290 19;
# names of files
open 2 -; openat 257 56; newfstatat 262 79; stat 4 -; lstat 6 -; statx 332 291; access 21 -; faccessat 269 48;
faccessat2 439 439; readlink 89 -; readlinkat 267 78; getcwd 79 17; chdir 80 49; fchdir 81 50; mkdir 83 -; mkdirat
258 34; rmdir 84 -; unlink 87 -; unlinkat 263 35; rename 82 -; renameat 264 38; renameat2 316 276; link 86 -; linkat
265 37; symlink 88 -; symlinkat 266 36; truncate 76 45; chmod 90 -; fchmodat 268 53; utime 132 -; utimes 235 -;
utimensat 280 88; futimesat 261 -; umask 95 166; statfs 137 43; getxattr 191 8; lgetxattr 192 9; listxattr 194 11;
llistxattr 195 12;
# time and signals to itself
clock_gettime 228 113; clock_getres 229 114; clock_nanosleep 230 115; nanosleep 35 101; gettimeofday 96 169; time
201 -; times 100 153; getitimer 36 102; setitimer 38 103; alarm 37 -; pause 34 -; rt_sigaction 13 134;
rt_sigprocmask 14 135; rt_sigreturn 15 139; rt_sigpending 127 136; rt_sigsuspend 130 133; rt_sigtimedwait 128 137;
sigaltstack 131 132;
# who and where it is
getpid 39 172; getppid 110 173; gettid 186 178; getuid 102 174; geteuid 107 175; getgid 104 176; getegid 108 177;
getresuid 118 148; getresgid 120 150; getgroups 115 158; getpgrp 111 -; getpgid 121 155; getsid 124 156; getpriority
140 141; uname 63 160; sysinfo 99 179; getrusage 98 165; getrlimit 97 163; setrlimit 160 164; getrandom 318 278;
# its end, and that of its children
exit 60 93; exit_group 231 94; wait4 61 260; waitid 247 95;
# a connected pair within the process
recvfrom 45 207; shutdown 48 210; getsockname 51 204; getpeername 52 205; getsockopt 55 209;
"""

# Allowed for some arguments only, or needed to set the boundary up.
_JUDGED = """
clone 56 220; clone3 435 435; fork 57 -; vfork 58 -; kill 62 129; tkill 200 130; tgkill 234 131; ioctl 16 29;
fcntl 72 25; socketpair 53 199; sendto 44 206; prctl 157 167; prlimit64 302 261; capset 126 91; pivot_root 155 41;
"""


def _table(text: str, arch: int) -> dict[str, int]:
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    rows = (row.split() for row in " ".join(lines).split(";") if row.strip())
    numbers = ((name, x86 if arch == X86_64 else arm) for name, x86, arm in rows)
    return {name: int(number) for name, number in numbers if number != "-"}


def allowed(arch: int) -> dict[str, int]:
    """The calls that need no look at their arguments, by name, the most frequent first."""
    return _table(_ALLOWED, arch)


def numbers(arch: int) -> dict[str, int]:
    """Every call named here, by name."""
    return _table(_ALLOWED, arch) | _table(_JUDGED, arch)


def machine_numbers() -> dict[str, int]:
    """Every call named here, by name, on this machine. Raises OSError where its numbers are not known."""
    arch = NATIVE.get(platform.machine().lower())
    if arch is None:
        raise OSError(errno.ENOSYS, f"the system calls of {platform.machine()} are not known here")
    return numbers(arch)
