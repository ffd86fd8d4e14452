"""Run a command in an OCI container like one that Docker starts when nobody gave it a flag.

    python tests/container/bundle.py [--user UID] [--runtime crun|runc] [--flag F].. -- COMMAND..

The root filesystem is the host's /usr, read-only, a few files of /etc, this interpreter, and a
*copy* of this checkout in the same place, which belongs to the user. Seccomp profile, capabilities
and masked paths come from docker.toml. Only root can start one (no daemon, no image, nothing is
downloaded). `--flag` takes away one of Docker's walls, by Docker's name: `seccomp=unconfined`,
`systempaths=unconfined`, `cap-add=SYS_ADMIN`. Exit status: the command's, or 125 where the runtime
could not start it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import uuid
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
FACTS = tomllib.loads((Path(__file__).parent / "docker.toml").read_text())
SYSTEM = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")
ETC = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "alternatives",
    "ssl/openssl.cnf",
    "localtime",
)
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "build", "__pycache__", ".*_cache", "_build", "*.egg-info"
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HYBRID = Path("/sys/fs/cgroup/unified")
# As `docker run --init`: a first process that waits for the command. The escape tests name
# processes of the host by number, so these are none that a sandbox has too.
INIT = ["/bin/sh", "-c", 'for n in $(seq 60); do (:); done; "$@"; exit $?', "sh"]
CANNOT_START = 125  # as `docker run`


def seccomp(capabilities: list[str]) -> dict[str, Any]:
    """Return Docker's default profile for this machine, as the runtime specification writes it."""
    allowed = sorted({name for group in FACTS["syscalls"].values() for name in group.split()})
    rules: list[dict[str, Any]] = [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]
    if "SYS_ADMIN" in capabilities:
        names = (
            "clone clone3 fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree"
        )
        names += " pivot_root setdomainname sethostname setns umount2 unshare"
        rules.append({"names": names.split(), "action": "SCMP_ACT_ALLOW"})
    else:
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
    for some in FACTS["some"]:
        if some["call"] in rules[1]["names"]:
            continue
        for value in some["values"]:
            condition = {"index": some["index"], "op": some["op"], "value": value}
            if some["op"] == "SCMP_CMP_MASKED_EQ":
                condition["valueTwo"] = 0
            rules.append({"names": [some["call"]], "action": "SCMP_ACT_ALLOW", "args": [condition]})
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": rules}


def config(args: argparse.Namespace, binds: list[tuple[Path, Path, str]]) -> dict[str, Any]:
    """Return the container's `config.json`; `binds`: (on the host, in the container, ro or rw)."""
    names = FACTS["capabilities"] + [
        flag.partition("=")[2] for flag in args.flag if flag.startswith("cap-add=")
    ]
    # A user that is not root starts without any, as `docker run --user`; the bounding set stays.
    bounding = [f"CAP_{name}" for name in names]
    own = bounding if args.user == 0 else []
    capabilities = {"bounding": bounding, "permitted": own, "effective": own, "inheritable": []}
    mounts = [
        {"destination": place, "type": kind, "source": kind, "options": options.split(",")}
        for place, kind, options in FACTS["mounts"]
    ]
    mounts += [
        {
            "destination": str(inside),
            "type": "bind",
            "source": str(here),
            "options": ["rbind", mode],
        }
        for here, inside, mode in binds
    ]
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": args.user, "gid": args.user},
            "args": [*INIT, *args.command],
            "env": [
                f"PATH={PATH}",
                "HOME=/home/user",
                "AGENTSBX_IN_CONTAINER=1",
                *(f"{name}={os.environ[name]}" for name in args.env if name in os.environ),
            ],
            "cwd": str(CHECKOUT),
            "capabilities": capabilities,
            "noNewPrivileges": False,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "container",
        "mounts": mounts,
        "linux": {"namespaces": [{"type": name} for name in FACTS["namespaces"]]},
    }
    if "systempaths=unconfined" not in args.flag:
        spec["linux"] |= {"maskedPaths": FACTS["masked"], "readonlyPaths": FACTS["readonly"]}
    if "seccomp=unconfined" not in args.flag:
        spec["linux"]["seccomp"] = seccomp(names)
    return spec


def interpreter_places() -> list[Path]:
    """Return the folders that this interpreter needs and /usr does not hold."""
    places = {Path(sys.prefix), Path(sys.base_prefix).resolve(), Path(sys.base_prefix)}
    return sorted(place for place in places if not place.is_relative_to("/usr"))


def root_filesystem(root: Path, user: int) -> None:
    """Fill `root` with what is not mounted: links as on the host, /etc, homes."""
    for name in SYSTEM:
        here = Path("/", name)
        if here.is_symlink():
            (root / name).symlink_to(os.readlink(here))
    for name in ETC:
        here, there = Path("/etc", name), root / "etc" / name
        if here.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if here.is_dir() else shutil.copy
            copy(here, there)
    (root / "etc/passwd").write_text(
        f"root:x:0:0::/root:/bin/sh\nuser:x:{user or 1000}:{user or 1000}::/home/user:/bin/sh\n"
    )
    (root / "etc/group").write_text(f"root:x:0:\ntty:x:5:\nuser:x:{user or 1000}:\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    for name, mode in (
        ("tmp", 0o1777),
        ("var/tmp", 0o1777),
        ("root", 0o755),
        ("run", 0o755),
        ("home/user", 0o700),
    ):
        (root / name).mkdir(parents=True)
        (root / name).chmod(mode)
    os.chown(root / "home/user", user, user)


def run(args: argparse.Namespace, work: Path) -> int:
    """Make the bundle in `work`, run it, and return the exit status."""
    root, copy = work / "rootfs", work / "checkout"
    root.mkdir()
    root_filesystem(root, args.user)
    shutil.copytree(CHECKOUT, copy, ignore=LEFT_OUT, symlinks=True)
    for path in (copy, *copy.rglob("*")):
        os.chown(path, args.user, args.user, follow_symlinks=False)
    binds = [(Path("/usr"), Path("/usr"), "ro"), (copy, CHECKOUT, "rw")]
    binds += [(place, place, "ro") for place in interpreter_places()]
    (work / "config.json").write_text(json.dumps(config(args, binds), indent=1))
    # crun refuses hosts with both versions of cgroups: it may not see version 2, in a mount
    # namespace of its own, and makes no group. runc takes them.
    own = ["--cgroup-manager=disabled"] if args.runtime == "crun" else []
    name = f"agentsbx-{uuid.uuid4().hex[:12]}"
    command = [args.runtime, *own, f"--root={work}/state", "run", f"--bundle={work}", name]
    if args.runtime == "crun" and HYBRID.is_mount():
        command = ["unshare", "-m", "sh", "-c", f'umount -l {HYBRID} && exec "$@"', "sh", *command]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    finally:
        subprocess.run(
            [args.runtime, *own, f"--root={work}/state", "delete", "--force", name],
            capture_output=True,
            check=False,
        )


def main() -> int:
    """Read the command line and run the container."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--user", type=int, default=0, help="uid and gid inside (0)")
    parser.add_argument("--runtime", choices=["crun", "runc"])
    parser.add_argument(
        "--flag", action="append", default=[], help="a wall of Docker's to take away"
    )
    parser.add_argument("--env", action="append", default=[], help="a variable to pass on")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    args.runtime = args.runtime or next(filter(shutil.which, ("runc", "crun")), None)
    if os.geteuid() != 0 or args.runtime is None:
        print("container: needs root and crun or runc (apt install runc)", file=sys.stderr)
        return CANNOT_START
    with tempfile.TemporaryDirectory(prefix="agentsbx-container-") as work:
        Path(work).chmod(0o755)
        return run(args, Path(work))


if __name__ == "__main__":
    sys.exit(main())
