"""Fill the disk: many bytes, many names, one huge file, a deep tree.

Source: CWE-400; security.md section 4 row "sparse bombs, inode bombs, deep trees, huge
names".
"""

from __future__ import annotations

ROUTES = (
    "bytes",
    "names",
    "file in write grant",
    "sparse file in write grant",
    "fallocate in write grant",
    "home",
    "cwd",
    "/tmp",
    "/dev/shm",
    "anywhere else",
)
POLICY = {"disk": "16MB", "inodes": 500, "file_size": "24MB", "memory": "512MB"}
NEEDS = {
    "anywhere else": "another writable place",
    "home": "a writable home",
    "cwd": "a writable working directory",
}


def attempt(canary: dict[str, str]) -> str | None:
    import os
    import tempfile

    route, goal = canary["route"], 40 << 20
    fill = b"x" * (1 << 20)
    if route == "names":
        place, made = tempfile.mkdtemp(), 0
        while made < 1500:
            os.close(os.open(f"{place}/{made}", os.O_WRONLY | os.O_CREAT))
            made += 1
        for name in os.listdir(place):
            os.unlink(f"{place}/{name}")
        os.rmdir(place)
        return f"made {made} files"
    if route.endswith("in write grant"):
        file = os.open(os.path.join(canary["rw"], "huge"), os.O_RDWR | os.O_CREAT)
        if route.startswith("sparse"):
            os.ftruncate(file, 1 << 40)
            return "made a file of a terabyte"
        if route.startswith("fallocate"):
            os.posix_fallocate(file, 0, goal)
            return f"made a file of {goal} bytes"
        done = 0
        while done < goal:
            done += os.write(file, fill)
        return f"made a file of {done} bytes"
    places = {
        "bytes": [tempfile.gettempdir()],
        "home": [os.path.expanduser("~")],
        "cwd": [os.getcwd()],
        "/tmp": ["/tmp"],
        "/dev/shm": ["/dev/shm"],
        "anywhere else": [
            "/",
            "/run",
            "/var/tmp",
            "/dev",
            "/proc",
            "/dev/mqueue",
            "/etc",
            "/usr",
            "/var",
            "/home",
            "/sys",
            canary["ro"],
        ],
    }[route]
    refused: OSError | None = None
    for place in places:
        names = [os.path.join(place, f"agentsbx-fill-{index}") for index in range(4)]
        done = 0
        try:
            for name in names:
                with open(name, "wb", buffering=0) as output:
                    for _ in range(10):
                        done += output.write(fill)
            return f"wrote {done} bytes below {place}"
        except OSError as error:
            refused = error
        finally:
            for name in names:
                try:
                    os.unlink(name)
                except OSError:
                    continue
    if refused is not None:
        raise refused
    return None
