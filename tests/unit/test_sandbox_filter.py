"""The filter on system calls, run by a small interpreter of the kernel's: every call of both machines is asked."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from anystep.sandbox.inside import seccomp
from anystep.sandbox.inside.seccomp import ALLOW, ERRNO, KILL, NEW_NAMESPACES, filter_for
from anystep.sandbox.inside.syscalls import AARCH64, X86_64, allowed, numbers

MACHINES = {"x86_64": X86_64, "aarch64": AARCH64}
HEADERS = {"x86_64": "x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "asm-generic/unistd.h"}
REFUSED = ERRNO | errno.EPERM


def run(code: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the kernel would return for a call: bpf(4) with the instructions that seccomp filters may use."""
    words = [a & (1 << 64) - 1 for a in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *words)
    lines = list(struct.iter_unpack("<HBBI", code))
    at, a = 0, 0
    while True:
        operation, yes, no, k = lines[at]
        at += 1
        if operation == 0x20:
            (a,) = struct.unpack_from("<I", data, k)
        elif operation == 0x54:
            a &= k
        elif operation == 0x06:
            return k
        else:
            true = {0x15: a == k, 0x35: a >= k, 0x45: bool(a & k)}[operation]
            at += yes if true else no


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(seccomp.platform, "machine", lambda: request.param)
    filter_for.cache_clear()
    yield request.param
    filter_for.cache_clear()


def test_every_call_is_refused_but_those_that_are_listed(machine: str) -> None:
    arch = MACHINES[machine]
    code, known = filter_for(0, 2, True, True), numbers(arch)
    assert len(code) // 8 < 4096  # the kernel's longest
    judged = set(known.values()) - set(allowed(arch).values())
    for number in range(1000):
        verdict = run(code, arch, number)
        if number in allowed(arch).values():
            assert verdict == ALLOW
        elif number not in judged:
            assert verdict == REFUSED
    for name in ("clone", "fork", "vfork"):
        if name in known:
            assert run(code, arch, known[name]) == ERRNO | errno.EAGAIN
    assert run(code, arch, known["clone3"]) == ERRNO | errno.ENOSYS
    for name in ("capset", "pivot_root"):
        assert run(code, arch, known[name]) == REFUSED


def test_another_machine_s_calls_end_the_program(machine: str) -> None:
    arch = MACHINES[machine]
    code = filter_for(0, 2, True, True)
    for other in {X86_64, AARCH64, 0x40000003, 0x40000028} - {arch}:
        assert run(code, other, 0) == KILL
    if machine == "x86_64":
        assert run(code, arch, 0x40000000 | 39) == KILL
        assert run(code, arch, 0xFFFFFFFF) == KILL


def test_arguments_decide_where_they_matter(machine: str) -> None:
    arch = MACHINES[machine]
    code, call = filter_for(0, 7, False, True), numbers(arch)
    for name in ("kill", "tkill", "tgkill"):
        assert run(code, arch, call[name], 7, 9) == ALLOW
        for pid in (0, 1, 8, -1, -7):
            assert run(code, arch, call[name], pid, 9) == REFUSED
    assert run(code, arch, call["prlimit64"], 0) == ALLOW
    assert run(code, arch, call["prlimit64"], 8) == REFUSED
    assert run(code, arch, call["socketpair"], 1, 1 | 0o2000000) == ALLOW
    assert run(code, arch, call["socketpair"], 1, 2) == REFUSED
    assert run(code, arch, call["socketpair"], 2, 1) == REFUSED
    assert run(code, arch, call["sendto"], 3, 0, 0, 0, 0) == ALLOW
    assert run(code, arch, call["sendto"], 3, 0, 0, 0, 1 << 40) == REFUSED
    assert run(code, arch, call["sendto"], 3, 0, 0, 0, 1) == REFUSED
    assert run(code, arch, call["fcntl"], 1, 3) == ALLOW
    for command in (8, 10, 15, 1024, 1031, 1033):  # owner, signal, owner again, lease, size of a pipe, seals
        assert run(code, arch, call["fcntl"], 1, command) == REFUSED
    assert run(code, arch, call["ioctl"], 1, 0x5401) == ALLOW
    for question in (0x5412, 0x8901, 0x40086602):  # push back input, owner of a socket, flags of a file
        assert run(code, arch, call["ioctl"], 1, question) == REFUSED
    assert run(code, arch, call["prctl"], 15) == ALLOW
    for option in (1, 4, 8, 22, 24, 38, 47, 53):
        assert run(code, arch, call["prctl"], option) == REFUSED


def test_children_are_let_through_without_new_namespaces(machine: str) -> None:
    arch = MACHINES[machine]
    code, call = filter_for(3, 7, False, True), numbers(arch)
    assert run(code, arch, call["clone"], 0x11) == ALLOW
    for bit in (b for b in range(32) if NEW_NAMESPACES >> b & 1):
        assert run(code, arch, call["clone"], 1 << bit | 0x11) == REFUSED
    assert run(code, arch, call["kill"], 8, 9) == REFUSED
    assert run(filter_for(3, 7, True, True), arch, call["kill"], 8, 9) == ALLOW  # alone in its pid namespace


def test_modes_of_files_are_refused_where_they_could_be_others(machine: str) -> None:
    arch = MACHINES[machine]
    with_modes, without = filter_for(0, 2, False, True), filter_for(0, 2, False, False)
    for name in seccomp.MODES:
        number = numbers(arch).get(name)
        if number is not None:
            assert run(with_modes, arch, number) == ALLOW
            assert run(without, arch, number) == REFUSED


@pytest.mark.parametrize("name", MACHINES)
def test_numbers_are_those_of_the_kernel_s_headers(name: str) -> None:
    header = Path("/usr/include") / HEADERS[name]
    if not header.exists():
        pytest.skip("the kernel's headers are not installed")
    defined = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    table = {call: int(number) for call, number in defined}
    if name == "aarch64":
        table["newfstatat"] = table["fstatat"]  # the same call: 64-bit machines have the longer name
    mine = numbers(MACHINES[name])
    assert mine == {call: table[call] for call in mine}
