"""Writes the files of one image to standard output as a tar archive, as a JSON list on standard input says:
each entry has a `path` in the image and one of `file`, `tree` (a directory), `text`, `link`, `directory`, or
is `python`: the archive that another program writes, with an interpreter. Programs bring their libraries."""

import io, json, os, re, subprocess, sys, tarfile

ENTRIES = json.load(sys.stdin)
tar = tarfile.open(fileobj=sys.stdout.buffer, mode="w|")
written, binaries = set(), []


def put(info, data=None):
    """Each path once: what comes first stays."""
    if info.name not in written:
        written.add(info.name)
        tar.addfile(info, data)


def is_program(path):
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def put_file(path, source, owner, mode=None):
    info = tarfile.TarInfo(path)
    if is_program(source):
        binaries.append(source)
    with open(source, "rb") as file:
        status = os.fstat(file.fileno())
        info.size, info.mode = status.st_size, mode or status.st_mode & 0o777
        info.uid = info.gid = owner
        put(info, file)


def put_special(path, kind, owner=0, mode=0o755, link=""):
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.linkname = kind, mode, link
    info.uid = info.gid = owner
    put(info)


def put_tree(path, source, owner, left_out):
    for directory, directories, files in os.walk(source):
        directories[:] = [d for d in directories if d not in left_out]
        here = os.path.normpath(os.path.join(path, os.path.relpath(directory, source)))
        put_special(here, tarfile.DIRTYPE, owner)
        for name in files:
            if name not in left_out:
                put_file(os.path.join(here, name), os.path.realpath(os.path.join(directory, name)), owner)


def stripped(path, source):
    """Without what only a debugger wants: these programs are five times as large with it."""
    out = f"/proc/self/fd/{(memory := os.memfd_create('stripped'))}"
    subprocess.run(["strip", "-o", out, source], check=True, pass_fds=[memory])
    binaries.append(source)
    info = tarfile.TarInfo(path)
    info.size, info.mode = os.fstat(memory).st_size, 0o755
    os.lseek(memory, 0, os.SEEK_SET)
    put(info, os.fdopen(memory, "rb"))


for entry in ENTRIES:
    owner, mode = entry.get("owner", 0), entry.get("mode")
    path = entry.get("path", "").lstrip("/")
    if "python" in entry:
        packer = subprocess.Popen([sys.executable, "-S", "-c", entry["python"]], stdout=subprocess.PIPE)
        with tarfile.open(fileobj=packer.stdout, mode="r|") as other:
            for member in other:
                put(member, other.extractfile(member) if member.isfile() else None)
        if packer.wait():
            sys.exit("the interpreter cannot be packed: see above")
    elif "directory" in entry:
        put_special(path, tarfile.DIRTYPE, owner, mode or 0o755)
    elif "link" in entry:
        put_special(path, tarfile.SYMTYPE, link=entry["link"])
    elif "text" in entry:
        data = entry["text"].encode()
        info = tarfile.TarInfo(path)
        info.size, info.mode = len(data), mode or 0o644
        info.uid = info.gid = owner
        put(info, io.BytesIO(data))
    elif "tree" in entry:
        put_tree(path, entry["tree"], owner, set(entry.get("without", [])))
    elif entry.get("strip"):
        stripped(path, entry["file"])
    else:
        put_file(path, entry["file"], owner, mode)

# What the programs are linked with, unless it is among the files already.
own = {os.path.realpath(b) for b in binaries}
for library in sorted({l for b in binaries for l in re.findall(
        r"(/\S+) \(0x", subprocess.run(["ldd", b], capture_output=True, text=True).stdout)}):
    if os.path.realpath(library) not in own:
        put_file(library[1:], os.path.realpath(library), 0, 0o755)
tar.close()
