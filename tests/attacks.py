"""Programs that try to get out of the sandbox, to harm what is outside, or to be taken for what they are not.

Each prints BREACH and what it got, where it got anything. `{secret}` and the like are filled in by the test: a file of
the parent's, its process id, a port it listens on.
"""

# ruff: noqa: E501 - a program reads better as it would stand in a file
from __future__ import annotations

from dataclasses import dataclass

from anystep.sandbox import Limits

QUICK = Limits(cpu=0.4, wall=40.0)  # a busy machine may give a program a twentieth of a processor
SOME = Limits(cpu=0.4, wall=40.0, processes=4)
AMPLE = Limits(cpu=5.0, wall=90.0)  # for what must meet another limit first, though touching memory is slow somewhere

# `got(what, attack)`: a breach unless the attack raises.
HELPERS = """
import os, sys, errno
def got(what, attack):
    try:
        result = attack()
    except (OSError, MemoryError, RuntimeError, ValueError, ImportError) as refused:
        return refused
    print("BREACH", what, repr(result)[:200], flush=True)
"""

# `call(name, ...)`: a raw system call of x86-64 that must be refused.
RAW = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[a if isinstance(a, bytes) else ctypes.c_long(a) for a in args])
    code = ctypes.get_errno()
    if result != -1 or code not in (errno.EPERM, errno.ENOSYS, errno.EAGAIN):
        print("BREACH", name, result, errno.errorcode.get(code), flush=True)
"""


@dataclass(frozen=True)
class Attack:
    """A program, what may become of it, and what a boundary must hold for it to fail: "files", or nothing special."""

    name: str
    code: str
    ends: str  # the outcomes that are right, with blanks between
    limits: Limits = QUICK
    needs: str = ""


ATTACKS = [
    # More than its share.
    Attack("fork_bomb", "while True: os.fork()", "error"),
    Attack("fork_bomb_some", "while True:\n    try: os.fork()\n    except OSError: pass", "cpu timeout", Limits(cpu=0.4, wall=8.0, processes=4)),
    Attack("thread_bomb", "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()", "error"),
    Attack(
        "thread_bomb_some",
        "import threading, time\nn = 0\ntry:\n    while True:\n"
        "        threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n        n += 1\n"
        "except RuntimeError: pass\nif n > 4: print('BREACH', n)",
        "ok",
        SOME,
    ),
    Attack("memory_at_once", "x = bytearray(1 << 40)", "memory"),
    Attack("memory_touched", "x = bytearray(200 << 20)\ny = bytearray(200 << 20)", "memory", AMPLE),
    Attack("memory_by_lists", "x = []\nwhile True: x.append([0] * 100000)", "memory", AMPLE),
    Attack("memory_by_text", "x = 'x'\nwhile True: x += x", "memory", AMPLE),
    Attack("memory_by_numbers", "x = 1 << (10 ** 10)", "memory"),
    Attack("memory_by_map", "import mmap\nx = [mmap.mmap(-1, 1 << 26) for _ in range(99)]", "error memory"),
    Attack("memory_by_nested", "x = []\nwhile True: x = [x]", "memory cpu killed"),
    Attack("memory_without_file", "got('memfd', lambda: os.memfd_create('x'))", "ok"),
    Attack(
        "memory_in_pipes",
        "import fcntl\nends = []\ntry:\n    while True:\n        ends.append(os.pipe())\n"
        "        got('pipe size', lambda: fcntl.fcntl(ends[-1][1], 1031, 1 << 20))\n"
        "except OSError: pass\nif len(ends) > 40: print('BREACH', len(ends))",
        "ok",
    ),
    Attack("memory_by_zip", "import zlib\nx = zlib.decompress(zlib.compress(bytes(50 << 20)) , bufsize=1 << 28)", "memory", AMPLE),
    Attack("loop", "while True: pass", "cpu"),
    Attack("loop_deaf", "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
           "    except (OSError, ValueError): pass\nwhile True: pass", "cpu"),
    Attack("loop_in_c", "sum(range(10 ** 12))", "cpu"),
    Attack("loop_in_regex", "import re; re.match('(a+)+$', 'a' * 60 + 'b')", "cpu"),
    Attack("loop_in_trace", "def f(*a):\n    while True: pass\nsys.settrace(f)\n(lambda: 0)()", "cpu"),
    Attack("loop_at_exit", "import atexit\n@atexit.register\ndef f():\n    while True: pass", "cpu"),
    Attack("loop_in_message", "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E", "cpu"),
    Attack("loop_in_threads", "import threading\ndef f():\n    while True: pass\n"
           "[threading.Thread(target=f).start() for _ in range(3)]", "cpu", SOME),
    Attack("sleep", "import time; time.sleep(1e6)", "timeout", Limits(wall=0.4)),
    Attack("stop_itself", "import signal; os.kill(os.getpid(), signal.SIGSTOP)", "timeout", Limits(wall=0.4)),
    Attack("wait_for_input", "got('pipe', lambda: os.read(os.pipe()[0], 1))", "timeout ok", Limits(wall=0.4)),
    Attack("flood_stdout", "while True: os.write(1, b'x' * 65536)", "output", AMPLE),
    Attack("flood_stderr", "while True: os.write(2, b'x' * 65536)", "output", AMPLE),
    Attack("flood_both", "while True: os.write(1, b'x'); os.write(2, b'y')", "output cpu"),
    Attack("flood_reply", "while True: os.write(4, b'x' * 65536)", "output", AMPLE),
    Attack("flood_in_message", "raise ValueError('x' * (100 << 20))", "output error memory", AMPLE),
    Attack("recursion", "def f(): f()\nf()", "error"),
    Attack("recursion_unbounded", "sys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()", "killed memory error cpu"),
    Attack("recursion_in_c", "sys.setrecursionlimit(10 ** 9)\nx = []\nfor _ in range(10 ** 6): x = [x]\nrepr(x)",
           "killed memory error cpu", Limits(cpu=2.0, wall=90.0)),
    Attack("priority", "got('nice', lambda: os.nice(-5))\n"
           "got('fifo', lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))", "ok"),
    # Files.
    Attack("fill_scratch", "f = open('x', 'wb')\nwhile True: f.write(bytes(1 << 20))", "error scratch"),
    Attack("fill_scratch_many", "for i in range(9999):\n    with open(f'{i}', 'wb') as f: f.write(bytes(1 << 20))",
           "error scratch"),
    Attack("fill_scratch_sparse", "got('truncate', lambda: os.truncate(open('x', 'wb').fileno(), 1 << 40))", "ok"),
    Attack("fill_scratch_names", "n = 0\nwhile True:\n    open(f'{n}', 'w').close()\n    n += 1",
           "error scratch cpu"),
    Attack("fill_scratch_deep", "while True:\n    os.mkdir('d')\n    os.chdir('d')", "error scratch cpu"),
    Attack("lock_scratch", "os.makedirs('a/b')\nopen('a/b/c', 'w').close()\nos.chmod('a/b', 0)\nos.chmod('.', 0)",
           "ok scratch error"),
    Attack("leave_scratch", "os.chdir('..')\nfor name in ('x', '../x', '/x', '/tmp/../x', '/dev/x'):\n"
           "    got('write', lambda: open(name, 'w'))", "ok", needs="files"),
    Attack("read_outside",
           "for name in ('/etc/passwd', '/etc/shadow', '/root/.bashrc', '/proc/self/environ', '/proc/1/environ',\n"
           "             '/proc/{parent}/environ', '/proc/{parent}/mem', '/proc/self/mem', '/proc/self/root/etc/passwd',\n"
           "             '/proc/self/cwd/../etc/passwd', '/proc/{parent}/root/etc/passwd',\n"
           "             '/sys/kernel/notes', '{secret}', '../..{secret}', '/proc/self/maps', '/proc/version'):\n"
           "    got(name, lambda: open(name, 'rb').read(10))", "ok", needs="files"),
    Attack("list_outside",
           "for name in ('/etc', '/home', '/proc', '/sys', '/var', '{folder}', '/proc/{parent}/fd'):\n"
           "    got(name, lambda: os.listdir(name))", "ok", needs="files"),
    Attack("write_outside",
           "for name in ('{secret}', '{folder}/new', '/new', '/etc/new', '/dev/shm/new', '/var/tmp/new', '/run/new',\n"
           "             sys.path[-1] + '/new.py', os.__file__):\n"
           "    got(name, lambda: open(name, 'ab'))\n"
           "got('unlink', lambda: os.unlink('{secret}'))\ngot('rename', lambda: os.rename('{secret}', 'mine'))\n"
           "got('mkdir', lambda: os.mkdir('{folder}/d'))\ngot('chmod', lambda: os.chmod(os.__file__, 0o777))\n"
           "got('utime', lambda: os.utime('{secret}'))\n"
           "got('chmod', lambda: os.chmod('{secret}', 0))\n"
           "with open(os.__file__) as f:\n    got('fchmod', lambda: os.fchmod(f.fileno(), 0o644))\n"
           "    got('futime', lambda: os.utime(f.fileno()))", "ok", needs="files"),
    Attack("symlink_outside",
           "os.symlink('{secret}', 'a')\nos.symlink('/', 'b')\nos.symlink('../../..', 'c')\n"
           "for name in ('a', 'b{secret}', 'c{secret}', 'b/etc/passwd'):\n"
           "    got(name, lambda: open(name).read())\n    got(name, lambda: open(name, 'a'))", "ok", needs="files"),
    Attack("hard_link_outside", "for name in ('{secret}', '/etc/passwd', os.__file__):\n"
           "    got(name, lambda: os.link(name, 'mine'))", "ok", needs="files"),
    Attack("devices",
           "for name in ('sda', 'vda', 'mem', 'kmsg', 'tty', 'pts/0', 'ptmx', 'fuse', 'kvm', 'net/tun', 'shm/x'):\n"
           "    got(name, lambda: open('/dev/' + name, 'rb'))\n"
           "got('mknod', lambda: os.mknod('x', 0o60666, os.makedev(8, 0)))", "ok", needs="files"),
    Attack("make_device", "got('mknod', lambda: os.mknod('x', 0o60666, os.makedev(8, 0)))\n"
           "got('fifo', lambda: os.mkfifo('y'))", "ok"),
    Attack("run_another", "open('x', 'w').write('#!/bin/sh')\ntry: os.chmod('x', 0o777)\nexcept OSError: pass\nimport subprocess\n"
           "for name in ('/bin/sh', './x', sys.executable):\n    got(name, lambda: os.execv(name, [name]))\n"
           "    got(name, lambda: subprocess.run([name]))\n"
           "if os.system('exit 0') == 0: print('BREACH system')", "ok", SOME),
    Attack("load_code", "got('exec', lambda: __import__('ctypes').CDLL('{secret}'))", "ok", needs="files"),
    Attack("import_host", "for name in ('anystep', 'torch', 'numpy', 'pip', 'pytest'):\n    got(name, lambda: __import__(name))\n"
           "sys.path[:0] = ['{source}', '{packages}']\n"
           "for name in ('anystep', 'torch', 'numpy'):\n    got(name, lambda: __import__(name))", "ok", needs="files"),
    Attack("core_dump", "import resource\ngot('core', lambda: resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20)))\n"
           "os.abort()", "killed"),
    # The network.
    Attack("sockets",
           "import socket\nfor family in ('AF_INET', 'AF_INET6', 'AF_UNIX', 'AF_NETLINK', 'AF_PACKET', 'AF_VSOCK'):\n"
           "    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):\n"
           "        got(family, lambda: socket.socket(getattr(socket, family), kind))\n"
           "got('pair', lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))\n"
           "got('connect', lambda: socket.create_connection(('127.0.0.1', {port}), 1))\n"
           "import urllib.request\ngot('url', lambda: urllib.request.urlopen('http://127.0.0.1:{port}', timeout=1))", "ok"),
    Attack("socket_from_pair",
           "import socket, array\na, b = socket.socketpair()\n"
           "got('connect', lambda: a.connect('\\0anystep'))\ngot('send to', lambda: a.sendto(b'x', '\\0anystep'))\n"
           "got('bind', lambda: a.bind('x'))\ngot('listen', lambda: a.listen())\n"
           "got('pass', lambda: a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [1]))]))\n"
           "got('option', lambda: a.setsockopt(socket.SOL_SOCKET, 33, 1 << 28))\n"
           "a.send(b'x'); assert b.recv(1) == b'x'", "ok"),
    # Other processes.
    Attack("signals",
           "import signal\nfor pid in (0, 1, -1, os.getppid() or 1, {parent}, -{parent}, {victim}, -{victim}):\n"
           "    for number in (0, signal.SIGTERM, signal.SIGKILL):\n        got(pid, lambda: os.kill(pid, number))\n"
           "got('group', lambda: os.killpg({parent}, 9))\ngot('descriptor', lambda: os.pidfd_open({parent}))\n"
           "import fcntl\nr, w = os.pipe()\ngot('owner', lambda: fcntl.fcntl(r, fcntl.F_SETOWN, {parent}))\n"
           "got('signal', lambda: fcntl.fcntl(r, fcntl.F_SETSIG, 9))", "ok"),
    Attack("signals_to_all", "got('all', lambda: os.kill({parent}, 9))\ngot('all', lambda: os.kill({victim}, 9))\n"
           "try: os.kill(-1, 9)\nexcept OSError: pass", "ok exit killed", SOME),
    Attack("daemon",
           "import time\nif os.fork() == 0:\n    try: os.setsid()\n    except OSError: pass\n    if os.fork() == 0:\n"
           "        os.closerange(0, 99)\n        time.sleep(1000)\n    os._exit(0)\nprint('left')", "ok", SOME),
    Attack("daemon_thread", "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
           "ok", SOME),
    Attack("leave_group", "got('session', os.setsid)\ngot('group', lambda: os.setpgid(0, 0))", "ok"),
    # The kernel.
    Attack("system_calls",
           RAW + "for name, number in dict(ptrace=101, process_vm_readv=310, process_vm_writev=311, mount=165, umount=166, chroot=161,\n"
           "        pivot_root=155, unshare=272, setns=308, bpf=321, keyctl=250, add_key=248, request_key=249,\n"
           "        userfaultfd=323, io_uring_setup=425, io_uring_enter=426, perf_event_open=298, memfd_create=319,\n"
           "        seccomp=317, execve=59, execveat=322, open_by_handle_at=304, name_to_handle_at=303, swapon=167,\n"
           "        reboot=169, init_module=175, finit_module=313, kexec_load=246, personality=135, quotactl=179,\n"
           "        shmget=29, msgget=68, semget=64, mq_open=240, kcmp=312, clone3=435, timer_create=222, acct=163,\n"
           "        setuid=105, setgid=106, setresuid=117, capset=126, mknod=133, sethostname=170, iopl=172,\n"
           "        settimeofday=164, clock_settime=227, adjtimex=159, syslog=103, fanotify_init=300, inotify_init1=294,\n"
           "        pidfd_open=434, pidfd_send_signal=424, pidfd_getfd=438, rt_sigqueueinfo=129, open_tree=428,\n"
           "        fsopen=430, mount_setattr=442, move_mount=429, landlock_create_ruleset=444, process_madvise=440,\n"
           "        socket=41, connect=42, bind=49, sendmsg=46, modify_ldt=154, vmsplice=278, splice=275,\n"
           "        migrate_pages=256, mbind=237, lookup_dcookie=212, setxattr=188, remap_file_pages=216).items():\n"
           "    call(name, number, 0, 0, 0, 0, 0)", "ok"),
    Attack("new_namespaces",
           RAW + "for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):\n"
           "    call('clone', 56, flag | 17, 0, 0, 0, 0)", "ok"),
    Attack("new_namespaces_some",
           RAW + "for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):\n"
           "    call('clone', 56, flag | 17, 0, 0, 0, 0)", "ok", SOME),
    Attack("undo",
           RAW + "for option, value in ((38, 0), (22, 0), (4, 1), (1, 0), (8, 1), (28, 0), (24, 0), (47, 2), (59, 1)):\n"
           "    call(f'prctl {{option}}', 157, option, value, 0, 0, 0)", "ok"),
    Attack("foreign_calls", RAW + "libc.syscall(ctypes.c_long(0x40000000 | 39))\nprint('BREACH')", "killed"),
    Attack("foreign_machine",
           "import ctypes, mmap\npage = mmap.mmap(-1, 4096, prot=7)\npage.write(bytes.fromhex('b814000000cd80c3'))\n"
           "at = ctypes.addressof(ctypes.c_char.from_buffer(page))\nprint('BREACH', ctypes.CFUNCTYPE(ctypes.c_int)(at)())", "killed"),
    Attack("raise_limits",
           "import resource\nfor name in dir(resource):\n    if name.startswith('RLIMIT_') and name not in ('RLIMIT_RSS', 'RLIMIT_OFILE'):\n"
           "        kind = getattr(resource, name)\n        hard = resource.getrlimit(kind)[1]\n"
           "        if hard not in (-1, resource.RLIM_INFINITY):\n"
           "            got(name, lambda: resource.setrlimit(kind, (hard + 1, hard + 1)))\n"
           "got('other', lambda: resource.prlimit({parent}, resource.RLIMIT_CPU, (1, 1)))", "ok"),
    # To be taken for something else.
    Attack("secrets", "for name, value in os.environ.items():\n    if 'FAKE' in name or 'sk-' in value: print('BREACH', name)\n"
           "import gc\nfor x in gc.get_objects():\n"
           "    if isinstance(x, dict) and any(isinstance(v, str) and 'sk-' + 'parent' in v for v in x.values()): print('BREACH', x)",
           "ok"),
    Attack("inherited", "for fd in range(5, 1024):\n    got(fd, lambda: os.fstat(fd))", "ok"),
    Attack("exit_at_once", "os._exit(0)", "exit"),
    Attack("exit_politely", "sys.exit(0)", "exit"),
    Attack("exit_at_exit", "import atexit\natexit.register(os._exit, 0)\nraise ValueError", "error exit"),
    Attack("exit_from_hook", "sys.excepthook = lambda *a: os._exit(0)\nraise ValueError", "exit"),
    Attack("exit_from_thread", "import threading\nthreading.Thread(target=os._exit, args=(0,)).start()\nwhile True: pass", "exit", SOME),
    Attack("exit_from_builtins", "import builtins\nbuiltins.repr = builtins.isinstance = builtins.len = None\nraise ValueError", "error exit garbled"),
    Attack("crash", "import faulthandler; faulthandler._sigsegv()", "killed"),
    Attack("crash_in_c", "import ctypes; ctypes.string_at(0)", "killed"),
    Attack("close_all", "os.closerange(0, 4096)", "exit ok"),
    Attack("garbage_to_all",
           "for fd in range(1025):\n    try: os.write(fd, b'\\xff' * 99)\n    except OSError: pass", "garbled"),
    Attack("forge_to_all",
           "frame = b't\\0\\0\\0\\1s\\0\\0\\0\\2ok'\nfor fd in range(1025):\n"
           "    try: os.write(fd, len(frame).to_bytes(4, 'big') + frame)\n    except OSError: pass\nraise ValueError", "garbled"),
    Attack("long_frame", "os.write(4, b'\\xff\\xff\\xff\\xff')\nos._exit(0)", "garbled"),
    Attack("deep_frame", "body = b'l\\0\\0\\0\\1' * 9999\nos.write(4, len(body).to_bytes(4, 'big') + body)\nos._exit(0)", "garbled"),
    Attack("odd_text", "os.write(1, b'\\xff\\xfe' * 99)\nprint('\\ud800')", "ok"),
    Attack("standard_streams_gone", "sys.stdout = sys.stderr = sys.__stdout__ = None\nraise ValueError", "error"),
    Attack("unbind", "import builtins\nfor name in list(vars(builtins)):\n    if name not in ('list', 'vars'): delattr(builtins, name)",
           "error exit"),
]  # fmt: skip
