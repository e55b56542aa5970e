"""Many reloads leave nothing behind: descriptors, threads, zombies, sockets and memory stay as they were."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.e2e.harness import left_behind, wait_until
from tests.e2e.reload.rig import App

KILOBYTES_A_RELOAD = 20


def counts(pid: int) -> dict[str, int]:
    """Descriptors, sockets among them, threads, zombies among the children, and resident KiB."""
    fds = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            fds.append(os.readlink(path))
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        "descriptors": len(fds),
        "sockets": sum(name.startswith("socket:") for name in fds),
        "threads": int(status["Threads"]),
        "children": len(children),
        "KiB": int(status["VmRSS"].split()[0]),
    }


WORKERS = 4
"""Threads for disk work come and go; so many more are no leak."""


def no_more(pid: int, was: dict[str, int]) -> dict[str, int] | None:
    """The counts of now, where none but the memory is above what it was."""
    now, most = counts(pid), {**was, "threads": was["threads"] + WORKERS}
    return now if all(now[name] <= most[name] for name in was if name != "KiB") else None


def test_many_reloads_leave_nothing_behind(app: App, soak: bool) -> None:
    app.release(boot_seconds=0)
    app.boot(SUPERVISOR_BAKE_SECONDS="0", SUPERVISOR_APP_MIN_UPTIME_SECONDS="0")
    own, haproxy = app.supervisor.pid, app.haproxy_pid()

    def reload(count: int) -> None:
        for _ in range(count):
            app.release(boot_seconds=0)
            outcome = app.reload()
            assert outcome["result"] == "ok", outcome

    def settled() -> tuple[dict[str, int], dict[str, int]]:
        wait_until("all drains are over", lambda: len(left_behind(app.supervisor.state)) == 2, limit=20)
        return counts(own), counts(haproxy)

    reload(10)
    before = settled()
    count = 1000 if soak else 40
    reload(count)
    settled()
    for pid, was in ((own, before[0]), (haproxy, before[1])):
        # One more while a connection is being closed; a leak does not go away.
        now = wait_until(f"{pid} has what it had: {was}, not {counts(pid)}", partial(no_more, pid, was), limit=10)
        grown = now["KiB"] - was["KiB"]
        assert grown < 2000 + count * KILOBYTES_A_RELOAD / (10 if soak else 1), f"{grown} KiB in {count} reloads"
    wait_until(
        "one notify socket is left", lambda: len(files(app.supervisor.folder / "run", "notify-*")) <= 1, limit=20
    )
    wait_until("two records are left", lambda: len(files(app.supervisor.state / "spawned", "*.json")) == 2, limit=20)


def files(folder: Path, pattern: str) -> list[Path]:
    return list(folder.rglob(pattern))
