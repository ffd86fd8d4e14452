"""A granted name that is swapped for a symlink while calls start never shows another directory.

Source: CVE-2021-30465 (runc), CVE-2026-34078 and CVE-2024-42472 (Flatpak); security.md section 4
row "bind target swapped by symlink".
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Any, Self

import pytest

RENAME_EXCHANGE = 2


class Flipper:
    """Exchanges a directory and a symlink to the secret, again and again."""

    def __init__(self, first: Path, second: Path) -> None:
        self._names = os.fsencode(first), os.fsencode(second)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._flip)

    def _flip(self) -> None:
        while not self._stop.is_set():
            self._libc.renameat2(-100, self._names[0], -100, self._names[1], RENAME_EXCHANGE)
            time.sleep(0.0005)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def places(scratch: Path) -> dict[str, Path]:
    granted, secret, link = scratch / "granted", scratch / "secret", scratch / "other"
    granted.mkdir()
    secret.mkdir()
    (granted / "file").write_text("granted")
    (secret / "file").write_text("secret")
    link.symlink_to(secret)
    return {"granted": granted, "link": link, "secret": secret}


def read(place: str) -> str:
    """Runs in the job."""
    with open(place + "/file") as file:
        return file.read()


def test_the_swap_shows_the_secret_unconfined(places: dict[str, Path]) -> None:
    """The control: checked first, used afterwards, by name."""
    won = 0
    with Flipper(places["granted"], places["link"]):
        end = time.monotonic() + 20
        while not won and time.monotonic() < end:
            try:
                if not places["granted"].is_symlink():
                    won += read(str(places["granted"])) == "secret"
            except OSError:
                continue
    assert won


def test_the_swap_never_shows_the_secret(places: dict[str, Path], box: Any) -> None:
    seen: dict[str, int] = {}
    with Flipper(places["granted"], places["link"]):
        for _ in range(200):
            try:
                result = box.sandbox(read=[str(places["granted"])])(read).run(
                    str(places["granted"])
                )
            except box.AgentsbxError as error:
                seen[type(error).__name__] = seen.get(type(error).__name__, 0) + 1
                continue
            told = str(result.value or type(result.error).__name__)
            seen[told] = seen.get(told, 0) + 1
    assert "secret" not in seen, seen


def test_a_symlink_is_no_grant_unless_asked(places: dict[str, Path], box: Any) -> None:
    link = str(places["link"])
    with pytest.raises(box.AgentsbxError) as caught:
        box.sandbox(read=[link])(read).run(link).unwrap()
    assert "link" in str(caught.value)


def test_a_replaced_directory_is_seen_new(places: dict[str, Path], box: Any) -> None:
    """Grants are names, looked up at each call: a bind mount alone keeps the old object."""
    granted = places["granted"]
    call = box.sandbox(read=[str(granted)])(read)
    assert call(str(granted)) == "granted"
    granted.rename(granted.with_name("old"))
    granted.mkdir()
    (granted / "file").write_text("new")
    assert call(str(granted)) == "new"
