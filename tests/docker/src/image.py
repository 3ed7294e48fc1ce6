import os, re, subprocess, sys, sysconfig, tarfile

# What no agent of a test imports, and what is large.
LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip", "distutils", "pydoc_data",
            "dist-packages", "site-packages", "unittest", "sqlite3", "turtledemo", "venv", "xmlrpc"}
ALSO_OUT = re.compile(r"config-\d.*|.*\.opt-[12]\.pyc|_test.*\.so|_codecs_.*\.so|_sqlite3.*|_tkinter.*")


def wanted(info):
    name = os.path.basename(info.name)
    return None if name in LEFT_OUT or ALSO_OUT.fullmatch(name) else info


def libraries(binary):
    told = subprocess.run(["ldd", binary], capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", told)


python = os.path.realpath(sys.executable)
stdlib = sysconfig.get_path("stdlib")
extensions = os.path.join(stdlib, "lib-dynload")
binaries = [python] + [os.path.join(extensions, f) for f in os.listdir(extensions) if not ALSO_OUT.fullmatch(f)]
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
    for directory in ["tmp", "proc", "sys", "dev", "etc", "bin"]:
        entry = tarfile.TarInfo(directory)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
        tar.addfile(entry)
    tar.add("/bin/busybox", "bin/busybox")
    for name in ["bin/sh", "bin/sleep", "bin/ip", "bin/ping", "bin/cat"]:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(entry)
    tar.add(stdlib, stdlib[1:], filter=wanted)
    tar.add(python, "usr/bin/python3")
    for library in sorted({l for b in binaries for l in libraries(b)}):
        tar.add(os.path.realpath(library), library[1:])
