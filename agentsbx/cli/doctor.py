"""`agentsbx doctor`: what this machine enforces, found by trying, and how to get the rest.

Each wall is judged by what happens when a sandboxed function runs against it, never by version
numbers. Exit code: 0 if the default policy is enforced, 1 if calls would be refused here.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import tempfile
from typing import Any, Literal, NamedTuple

import agentsbx
from agentsbx import AgentsbxError, Result, sandbox
from agentsbx._remedies import is_filtered
from agentsbx.cli._table import table

__all__ = ["main", "report"]

USAGE = """usage: agentsbx doctor [--json]

Try what this machine can enforce; say what is refused, and how to get the rest.
Exit code: 0 if the default policy is enforced here, 1 if not."""

SYSCTLS = (
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
    "user/max_user_namespaces",
    "kernel/yama/ptrace_scope",
    "kernel/io_uring_disabled",
    "vm/memfd_noexec",
)

APPARMOR = """\
# /etc/apparmor.d/agentsbx-launcher; then: apparmor_parser -r /etc/apparmor.d/agentsbx-launcher
abi <abi/4.0>,
include <tunables/global>
profile agentsbx-launcher {launcher} flags=(unconfined) {{
  userns,
  include if exists <local/agentsbx-launcher>
}}
"""
SYSTEMD = """\
# control groups for an ordinary user, from a shell:
systemd-run --user --scope -p Delegate=yes python agent.py
# for a service, in its unit:
[Service]
Delegate=yes
"""


class Check(NamedTuple):
    """One thing that was tried."""

    what: str
    status: Literal["enforced", "weaker", "refused", "unknown"]
    detail: str
    remedy: str = ""


def main(argv: list[str]) -> int:
    """Print the report; see `USAGE`."""
    if argv not in ([], ["--json"]):
        print(USAGE)
        return 0 if argv[0] in ("-h", "--help") else 125
    found = report()
    if argv:
        json.dump(found, sys.stdout, indent=2)
        print()
    else:
        print(_text(found))
    return 0 if found["works"] else 1


def report() -> dict[str, Any]:
    """Try everything; the data that `--json` prints."""
    checks: list[Check] = []
    caps: dict[str, Any] = {}
    try:
        caps = _plain(agentsbx.probe())
    except AgentsbxError as error:
        checks.append(_refused("start the supervisor", error))
    function = command = None
    if not checks:
        function, more = _try_function()
        checks += more
        command, more = _try_command()
        checks += more
        result = function if function is not None else command
        if result is not None:
            checks += _limits(result)
    agentsbx.shutdown()
    return {
        "works": bool(function and function.ok and command and command.value == 0)
        and not any(check.status == "refused" for check in checks if check.remedy != "strict"),
        "version": agentsbx.__version__,
        "machine": _machine(),
        "caps": caps,
        "checks": [check._asdict() for check in checks],
        "how": _how(checks),
    }


def _plain(caps: Any) -> dict[str, Any]:
    import msgspec

    built: dict[str, Any] = msgspec.to_builtins(caps)
    return built


def _refused(what: str, error: AgentsbxError) -> Check:
    return Check(what, "refused", str(error), error.hint or "")


# -- trying -------------------------------------------------------------------------------------


def _look_round(canary: str, port: int, secret: str) -> dict[str, Any]:
    """Inside: try what must not work, and report what happened."""
    import os
    import socket

    def attempt(call: Any) -> str:
        try:
            call()
        except OSError as error:
            return error.strerror or type(error).__name__
        return ""

    with open("/proc/self/status") as file:
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    return {
        "pid": os.getpid(),
        "canary": attempt(lambda: open(canary)),
        "write": attempt(lambda: open("/usr/agentsbx-canary", "w")),
        "connect": attempt(lambda: socket.create_connection(("127.0.0.1", port), 2)),
        "secret": secret in os.environ.values(),
        "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
        "no_new_privs": status.get("NoNewPrivs"),
        "seccomp": status.get("Seccomp"),
        "descriptors": sorted(map(int, os.listdir("/proc/self/fd"))),
        "home": os.environ.get("HOME"),
    }


def _try_function() -> tuple[Result | None, list[Check]]:
    secret = os.urandom(16).hex()
    with tempfile.NamedTemporaryFile() as canary, socket.create_server(("127.0.0.1", 0)) as server:
        os.environ["AGENTSBX_DOCTOR_SECRET"] = secret
        try:
            result = sandbox(_look_round).run(canary.name, server.getsockname()[1], secret)
        except AgentsbxError as error:
            return None, [_refused("call a function in a sandbox", error)]
        finally:
            del os.environ["AGENTSBX_DOCTOR_SECRET"]
    if result.error is not None:
        detail = f"{type(result.error).__name__}: {result.error}"
        return result, [Check("call a function in a sandbox", "refused", detail)]
    seen = result.value
    rows = (
        ("files of the host are hidden", bool(seen["canary"]), f"open: {seen['canary']}"),
        ("system folders are read-only", bool(seen["write"]), f"write: {seen['write']}"),
        ("no network", bool(seen["connect"]), f"connect: {seen['connect']}"),
        ("the environment is hidden", not seen["secret"], f"HOME is {seen['home']}"),
        ("processes of its own", seen["pid"] == 1, f"it is process {seen['pid']} there"),
        ("no capabilities", seen["capabilities"] == 0, f"{seen['capabilities']:#x}"),
        ("no new privileges", seen["no_new_privs"] == "1", f"{seen['no_new_privs']}"),
        ("system call filter", seen["seccomp"] == "2", f"seccomp mode {seen['seccomp']}"),
    )
    checks = [
        Check(what, "enforced" if ok else "refused", detail if ok else f"NOT so: {detail}")
        for what, ok, detail in rows
    ]
    layers = [
        Check(f"layer: {name}", "enforced", by)
        for name, by in result.enforced.items()
        if name not in result.limits
    ]
    return result, checks + layers


def _try_command() -> tuple[Result | None, list[Check]]:
    try:
        result = agentsbx.run(["sh", "-c", "exit 0"])
    except AgentsbxError as error:
        return None, [_refused("run a command in a sandbox", error)]
    ok = result.value == 0
    detail = "sh -c 'exit 0'" if ok else str(result.error or f"exit code {result.value}")
    return result, [Check("commands", "enforced" if ok else "refused", detail)]


def _limits(result: Result) -> list[Check]:
    checks = []
    for limit in result.limits.values():
        by = limit.enforced_by
        if limit.asked is None:
            continue
        if by == "none":
            how = "nothing enforces it here; a policy that sets it is refused"
            checks.append(Check(f"limit: {limit.name}", "refused", how, "strict"))
        elif "poll" in by:
            how = f"{by}: per process and by polling, not exact; strict=True is refused"
            checks.append(Check(f"limit: {limit.name}", "weaker", how))
        else:
            checks.append(Check(f"limit: {limit.name}", "enforced", by))
    return checks


# -- the machine --------------------------------------------------------------------------------


def _machine() -> dict[str, Any]:
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "uid": os.getuid() if hasattr(os, "getuid") else None,
        "launcher": _launcher(),
        "lsm": _read("/sys/kernel/security/lsm"),
        "cgroup": _cgroup(),
        "container": _container(),
        "walls": _walls(),
        "sysctl": {
            name.replace("/", "."): value
            for name in SYSCTLS
            if (value := _read(f"/proc/sys/{name}")) is not None
        },
    }


def _launcher() -> str:
    return os.path.join(os.path.dirname(agentsbx.__file__), "_bin", "agentsbx-launcher")


def _read(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read(4096).strip()
    except OSError:
        return None


def _cgroup() -> str:
    lines = (_read("/proc/self/cgroup") or "").splitlines()
    if any(line.startswith("0::") for line in lines):
        kind = "v2" if len(lines) == 1 else "v1 and v2"
    else:
        kind = "v1" if lines else "none"
    return f"{kind}: {lines[-1].split(':', 2)[-1]}" if lines else kind


def _container() -> str | None:
    for path, name in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if os.path.exists(path):
            return name
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    return os.environ.get("container")  # noqa: SIM112 - what systemd and podman set


def _walls() -> list[str]:
    """What a container runtime or another sandbox has laid over this program, seen from within."""
    seen = ["a system call filter"] if is_filtered() else []
    try:
        with open("/proc/self/mountinfo") as file:
            places = {line.split()[4] for line in file}
    except OSError:
        return seen
    masked = sum(place.startswith("/proc/") and "binfmt_misc" not in place for place in places)
    return seen + ([f"{masked} masked or read-only places below /proc"] if masked else [])


# -- words --------------------------------------------------------------------------------------


def _how(checks: list[Check]) -> dict[str, str]:
    """Say how to get what is refused or weaker; empty where nothing is."""
    how: dict[str, str] = {}
    for check in checks:
        if check.status == "refused" and check.remedy and check.remedy != "strict":
            how[check.what] = check.remedy
    missing = [check for check in checks if check.status == "refused"]
    text = " ".join(f"{check.detail} {check.remedy}" for check in missing).lower()
    restricted = _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
    if ("namespace" in text and not is_filtered()) or restricted:
        how["AppArmor profile"] = APPARMOR.format(launcher=_launcher())
    if any(check.status == "weaker" for check in checks) or "control group" in text:
        how["control groups"] = SYSTEMD
    return how


def _text(found: dict[str, Any]) -> str:
    machine = found["machine"]
    facts = [
        ("agentsbx", found["version"]),
        ("system", f"Linux {machine['kernel']} {machine['architecture']}"),
        ("python", f"{machine['python']}, {machine['executable']}"),
        ("user", "root" if machine["uid"] == 0 else f"uid {machine['uid']}"),
        ("container", machine["container"] or "none seen"),
        ("over this program", ", ".join(machine["walls"]) or "nothing seen"),
        ("lsm", machine["lsm"] or "unknown"),
        ("cgroup", machine["cgroup"]),
        *machine["sysctl"].items(),
        *((name, str(value)) for name, value in found["caps"].items()),
    ]
    marks = {"enforced": "ok", "weaker": "weaker", "refused": "REFUSED", "unknown": "?"}
    rows = [(check["what"], marks[check["status"]], check["detail"]) for check in found["checks"]]
    lines = [table([("this machine", ""), *facts]), "", table([("tried", "", ""), *rows])]
    for what, remedy in found["how"].items():
        lines += ["", f"To get more ({what}):", *(f"  {line}" for line in remedy.splitlines())]
    works = "Calls run here: the default policy is enforced."
    refused = "Calls are REFUSED here: what is missing stands above."
    return "\n".join([*lines, "", works if found["works"] else refused])
