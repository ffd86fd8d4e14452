"""`AsyncSandbox` behind the contracts of pydantic-ai and inspect-ai: as thin as they allow.

No adapters (those come with their own configuration and clean-up): what is written here is what the
contracts and our verbs name differently. Each line is one that an adapter needs too.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxEnvironment,
    SandboxEnvironmentLimits,
    SandboxUserUnsupportedError,
)
from pydantic_ai.workspaces import (
    CommandResult,
    FileEntry,
    WorkspaceOutputLimitError,
    WorkspaceRef,
    WorkspaceTimeoutError,
    WorkspaceUnavailableError,
)

import agentsbx
from agentsbx import AgentsbxError, AsyncSandbox

LIMITS: dict[str, Any] = {"memory": "1GB", "disk": "512MB", "output": "12MiB", "timeout": "10min"}
NOT_EXECUTABLE, NO_PROGRAM = 126, 127  # exit codes, as a shell's


class Workspace:
    """A backend of pydantic-ai; `alive` holds the sandboxes that a ref can name."""

    alive: ClassVar[dict[str, AsyncSandbox]] = {}

    def __init__(self, ref: WorkspaceRef | None = None) -> None:
        self._ref = ref
        self._box = None if ref else AsyncSandbox(**LIMITS)
        self._dir = ""

    @property
    def ref(self) -> WorkspaceRef | None:
        """The sandbox's id, once it is in use."""
        return self._ref

    @contextlib.contextmanager
    def _used(self) -> Iterator[AsyncSandbox]:
        if self._ref is None:
            assert self._box is not None
            self._ref = WorkspaceRef(provider="agentsbx", id=self._box.id)
            self.alive[self._box.id] = self._box
        box = self.alive.get(self._ref.id)
        if box is None:
            raise WorkspaceUnavailableError(f"the sandbox {self._ref.id} is gone")
        try:
            yield box
        except AgentsbxError as error:
            raise WorkspaceUnavailableError(str(error)) from error

    async def destroy(self) -> None:
        """End the sandbox."""
        assert self._ref is not None
        await self.alive.pop(self._ref.id).close()

    async def working_dir(self) -> str:
        """Where commands start."""
        if not self._dir:
            with self._used() as box:
                self._dir = (await box.exec(["pwd", "-P"])).text.rstrip("\n")
        with self._used():
            return self._dir

    async def run(
        self, command: str | Sequence[str], *, shell: bool = False,
        env: Mapping[str, str] | None = None, timeout: float | None = None,
    ) -> CommandResult:  # fmt: skip
        """Run a command; what it left in the background stays."""
        if isinstance(command, str) is not shell:
            raise TypeError("a text needs shell=True, words need shell=False")
        with self._used() as box:
            done = await box.exec(command, env=env, timeout=timeout, keep_background=True)
        out, err = (data.decode(errors="replace") for data in (done.stdout, done.stderr))
        if done.timed_out:
            raise WorkspaceTimeoutError(f"took longer than {timeout} s", stdout=out, stderr=err)
        if done.truncated:
            limit = box.policy.limits.output
            raise WorkspaceOutputLimitError("too much output", limit=limit, stdout=out, stderr=err)
        return CommandResult(exit_code=done.exit_code, stdout=out, stderr=err)

    async def read_bytes(self, path: str) -> bytes:
        """Read a file."""
        with self._used() as box:
            return await box.read(path)

    async def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file and make the folders above it."""
        with self._used() as box:
            await _write(box, path, data)

    async def stat(self, path: str) -> FileEntry:
        """Look at what a path leads to."""
        with self._used() as box:
            found = await box.stat(path)
        is_dir = found.kind == "directory"
        name = posixpath.basename(posixpath.normpath(path))
        return FileEntry(name=name, path=path, is_dir=is_dir, size=None if is_dir else found.size)

    async def list_dir(self, path: str) -> list[FileEntry]:
        """List a folder; a link to a folder is one."""
        with self._used() as box:
            found = await box.list(path)
        entries = []
        for info in found:
            whole = posixpath.join(path, info.name)
            is_dir = info.kind == "directory"
            if info.kind == "link":
                with contextlib.suppress(OSError):
                    is_dir = (await self.stat(whole)).is_dir
            size = info.size if info.kind == "file" else None
            entries.append(FileEntry(name=info.name, path=whole, is_dir=is_dir, size=size))
        return entries

    async def make_dir(self, path: str) -> None:
        """Make a folder and those above it."""
        with self._used() as box:
            await box.mkdir(path, parents=True)

    async def remove(self, path: str) -> None:
        """Remove a file or a tree, never the working folder."""
        here = await self.working_dir()
        if posixpath.commonpath([here, posixpath.normpath(path)]) == posixpath.normpath(path):
            raise ValueError(f"{path!r} is the working folder or lies above it")
        with self._used() as box:
            await box.remove(path, recursive=True)

    async def exists(self, path: str) -> bool:
        """Whether there is something."""
        try:
            await self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def realpath(self, path: str) -> str:
        """Follow every link, in the sandbox."""
        with self._used() as box:
            done = await box.exec(["realpath", "-m", "-z", "--", path])
        if not done.ok:
            raise OSError(40, done.stderr.decode(errors="replace"), path)
        return done.stdout.rstrip(b"\0").decode(errors="surrogateescape")


async def _write(box: AsyncSandbox, path: str, data: bytes | str) -> None:
    try:
        await box.write(path, data)
    except FileNotFoundError:
        await box.mkdir(posixpath.dirname(path), parents=True)
        await box.write(path, data)


class Environment(SandboxEnvironment):
    """A sandbox environment of inspect-ai."""

    def __init__(self) -> None:
        self.box = AsyncSandbox(**LIMITS)

    async def exec(
        self, cmd: list[str], input: str | bytes | None = None,  # noqa: A002 - theirs
        cwd: str | None = None,
        env: dict[str, str] | None = None, user: str | None = None, timeout: int | None = None,
        timeout_retry: bool = True, concurrency: bool = True,
    ) -> ExecResult[str]:  # fmt: skip
        """Run a command."""
        try:
            done = await self.box.exec(
                cmd, stdin=input, cwd=cwd, env=env, timeout=timeout, user=user
            )
        except agentsbx.SandboxUnavailable as error:
            if user is None:
                raise
            raise SandboxUserUnsupportedError(str(error)) from error
        out, err = done.stdout.decode(), done.stderr.decode()
        if done.timed_out:
            raise TimeoutError(f"took longer than {timeout} s")
        limit = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        if done.truncated or max(len(done.stdout), len(done.stderr)) > limit:
            said = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR
            raise OutputLimitExceededError(limit_str=said, truncated_output=out)
        if done.exit_code == NOT_EXECUTABLE and not out:
            raise PermissionError(13, err, cmd[0])
        return ExecResult(done.exit_code == 0, done.exit_code, out, err)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file and make the folders above it."""
        await _write(self.box, file, contents)

    async def read_file(self, file: str, text: bool = True) -> Any:
        """Read a file of bounded size."""
        limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        if (await self.box.stat(file)).size > limit:
            said = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR
            raise OutputLimitExceededError(limit_str=said, truncated_output=None)
        data = await self.box.read(file, max_bytes=limit)
        return data.decode() if text else data

    @classmethod
    async def sample_cleanup(
        cls, task_name: str, config: Any, environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:  # fmt: skip
        """End the sandboxes of a sample."""
        for environment in environments.values():
            assert isinstance(environment, Environment)
            await environment.box.close()
