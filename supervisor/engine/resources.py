"""The engine's objects, one small class for each kind; values are the API's own, as its reference words them."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote

from anyio.abc import ObjectReceiveStream

from supervisor.engine.errors import EngineRefused, Unavailable
from supervisor.engine.streams import Decoded, Frames, JsonLines, Output

Object = dict[str, Any]
_BEGIN = {"Detach": False, "Tty": False}
# Runs its arguments, and ends them once its standard input is at its end. The engine lets a program run on when whoever
# started it is gone, and closes its input only. What watches must not keep the outputs open past the program, and is
# waited for: a Postgres that is PID 1 takes an orphan which ended by a signal for a crash of its own, and starts again.
_LIFELINE = """exec 3<&0
"$@" 3<&- & work=$!
{ read -r _ <&3; kill "$work"; } >/dev/null 2>&1 & watch=$!
exec 3<&-
wait "$work"; code=$?
kill "$watch" 2>/dev/null
wait "$watch" 2>/dev/null
exit "$code"
"""
_PIECE_BYTES = 256 * 1024
_KEPT_BYTES = 64 * 1024


class Caller(Protocol):
    """What sends the requests: `supervisor.engine.client.Engine`."""

    async def call(
        self,
        method: str,
        path: str,
        *,
        action: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Any: ...

    def stream(
        self,
        method: str,
        path: str,
        *,
        action: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        opening_seconds: float | None = None,
        piece_bytes: int | None = None,
    ) -> AbstractAsyncContextManager[ObjectReceiveStream[bytes]]: ...


def as_filters(filters: Mapping[str, Sequence[str]] | None) -> dict[str, str] | None:
    """The `filters` parameter; engines ignore bare ones such as `service=`, which then select everything."""
    return {"filters": json.dumps({key: list(values) for key, values in filters.items()})} if filters else None


def as_object(answer: Any) -> Object:
    """An answer that is one JSON object."""
    assert isinstance(answer, dict), f"no object: {answer!r}"
    return answer


def as_list(answer: Any) -> list[Object]:
    """An answer that is a list; engines write an empty one as null."""
    return list(answer or ())


def _id(answer: Any) -> str:
    found = as_object(answer)
    return str(found.get("Id") or found["ID"])


def _seg(name: str) -> str:
    return quote(name, safe="")


@dataclass(frozen=True)
class ExecResult:
    """How a program in a container ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class _Kind:
    """What is alike for all kinds."""

    def __init__(self, caller: Caller, word: str) -> None:
        self._caller = caller
        self._word = word
        self._path = f"/{word}s"

    def _named(self, verb: str, name: str) -> str:
        return f"{verb} {self._word} {name!r}"

    async def inspect(self, name: str) -> Object:
        """The object of this name or id. Raises NotFound."""
        path = f"{self._path}/{_seg(name)}"
        return as_object(await self._caller.call("GET", path, action=self._named("inspect", name)))

    async def find(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[Object]:
        """All objects that match every one of `filters` (a name matches as a part: compare again)."""
        action = f"list {self._word}s"
        return as_list(await self._caller.call("GET", self._path, action=action, params=as_filters(filters)))

    async def remove(self, name: str) -> None:
        """Remove it. Raises NotFound, and Conflict or EngineRefused while it is in use."""
        await self._caller.call("DELETE", f"{self._path}/{_seg(name)}", action=self._named("remove", name))


class Containers(_Kind):
    """Containers."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller, "container")

    async def create(self, config: Mapping[str, Any], name: str) -> str:
        """Make one without starting it; its id. Raises Conflict for a taken name, NotFound for a missing image."""
        path, action = "/containers/create", self._named("create", name)
        return _id(await self._caller.call("POST", path, action=action, params={"name": name}, body=config))

    async def start(self, name: str, *, timeout_seconds: float = 30.0) -> None:
        """Start it; one that runs stays as it is."""
        path, action = f"/containers/{_seg(name)}/start", self._named("start", name)
        await self._caller.call("POST", path, action=action, timeout_seconds=timeout_seconds)

    async def stop(self, name: str, *, grace_seconds: int = 10) -> None:
        """Its stop signal, and KILL after the grace; returns when it has stopped."""
        path, action = f"/containers/{_seg(name)}/stop", self._named("stop", name)
        params = {"t": grace_seconds}
        await self._caller.call("POST", path, action=action, params=params, timeout_seconds=grace_seconds + 10.0)

    async def kill(self, name: str, signal: str = "KILL") -> None:
        """Send a signal. Raises Conflict where it does not run."""
        path, action = f"/containers/{_seg(name)}/kill", self._named("signal", name)
        await self._caller.call("POST", path, action=action, params={"signal": signal})

    async def rename(self, name: str, new_name: str) -> None:
        """Give it another name. Raises Conflict for a taken one."""
        path, action = f"/containers/{_seg(name)}/rename", self._named("rename", name)
        await self._caller.call("POST", path, action=action, params={"name": new_name})

    async def remove(self, name: str, *, force: bool = False, anonymous_volumes: bool = False) -> None:
        """Remove it; `force` kills it first. Named volumes always stay."""
        params = {"force": int(force), "v": int(anonymous_volumes)}
        path, action = f"/containers/{_seg(name)}", self._named("remove", name)
        await self._caller.call("DELETE", path, action=action, params=params, timeout_seconds=30.0)

    async def inspect(self, name: str) -> Object:
        """The container of this name or id. Raises NotFound."""
        path = f"/containers/{_seg(name)}/json"
        return as_object(await self._caller.call("GET", path, action=self._named("inspect", name)))

    async def find(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[Object]:
        """All that match, stopped ones too."""
        params = {"all": 1, **(as_filters(filters) or {})}
        return as_list(await self._caller.call("GET", "/containers/json", action="list containers", params=params))

    async def put_archive(self, name: str, folder: str, tar: bytes | BinaryIO) -> None:
        """Unpack a tar, or an open file that is one, into a folder of a container, running or not: how files get where
        binds cannot reach.
        """
        path, action = f"/containers/{_seg(name)}/archive", self._named("write files into", name)
        headers = {"Content-Type": "application/x-tar"}
        await self._caller.call("PUT", path, action=action, params={"path": folder}, data=tar, headers=headers)

    async def get_archive(self, name: str, path: str) -> bytes:
        """A file or folder of a container as a tar, what is mounted there included. Raises NotFound."""
        at, action = f"/containers/{_seg(name)}/archive", self._named(f"read {path!r} out of", name)
        answer = await self._caller.call("GET", at, action=action, params={"path": path}, timeout_seconds=30.0)
        return bytes(answer or b"")

    async def logs(self, name: str, *, tail: int = 100) -> list[Output]:
        """The last lines of its output, in order."""
        frames = Frames(terminal=await self._has_terminal(name))
        params = {"stdout": 1, "stderr": 1, "tail": tail}
        action = self._named("read the output of", name)
        answer = await self._caller.call("GET", f"/containers/{_seg(name)}/logs", action=action, params=params)
        return frames.feed(answer or b"")

    @asynccontextmanager
    async def follow(self, name: str, *, tail: int = 0, since: float = 0.0) -> AsyncIterator[AsyncIterator[Output]]:
        """Its output as it comes, after the last `tail` lines that came after `since` (Unix time, in seconds); ends
        when the container does.
        """
        frames = Frames(terminal=await self._has_terminal(name))
        params = {"stdout": 1, "stderr": 1, "follow": 1, "tail": tail, "since": f"{since:f}"}
        action = self._named("follow the output of", name)
        async with self._caller.stream("GET", f"/containers/{_seg(name)}/logs", action=action, params=params) as chunks:
            yield Decoded(chunks, frames.feed)

    async def exec(
        self,
        name: str,
        argv: Sequence[str],
        *,
        user: str = "",
        env: Mapping[str, str] | None = None,
        timeout_seconds: float = 30.0,
    ) -> ExecResult:
        """Run a program in it to its end. Past the limit Unavailable is raised; the program itself runs on.

        `env` is added to the container's own.
        """
        action = self._named(f"run {argv[0]!r} in", name)
        path = await self._made(name, argv, user=user, env=env, action=action)
        raw = await self._caller.call(
            "POST", f"{path}/start", action=action, body=_BEGIN, timeout_seconds=timeout_seconds
        )
        ended = as_object(await self._caller.call("GET", f"{path}/json", action=action))
        pieces = Frames().feed(raw or b"")
        out, err = (b"".join(each.data for each in pieces if each.stream == name) for name in ("stdout", "stderr"))
        return ExecResult(int(ended["ExitCode"]), out, err)

    async def exec_to(
        self,
        name: str,
        argv: Sequence[str],
        take: Callable[[bytes], Awaitable[object]],
        *,
        env: Mapping[str, str] | None = None,
    ) -> ExecResult:
        """Run a program in it to its end, however long that takes; what it writes goes to `take` as it comes.

        Of what it says on stderr the last 64 KiB are in the result. Raises Unavailable where the connection ends before
        it did. It gets TERM when the connection ends, so by cancelling, and when we are killed. Needs an `sh` there.
        """
        action = self._named(f"run {argv[0]!r} in", name)
        held = ["sh", "-c", _LIFELINE, "sh", *argv]
        path = await self._made(name, held, user="", env=env, action=action, stdin=True)
        said = bytearray()
        frames = Frames()
        start = self._caller.stream("POST", f"{path}/start", action=action, body=_BEGIN, piece_bytes=_PIECE_BYTES)
        async with start as chunks:
            async for piece in Decoded(chunks, frames.feed):
                if piece.stream == "stdout":
                    await take(piece.data)
                else:
                    said += piece.data
                    del said[:-_KEPT_BYTES]
        ended = as_object(await self._caller.call("GET", f"{path}/json", action=action))
        if ended["ExitCode"] is None or not frames.is_whole:
            raise Unavailable(f"cannot {action}: the connection ended before it did; is the engine running?")
        return ExecResult(int(ended["ExitCode"]), b"", bytes(said))

    async def _made(
        self,
        name: str,
        argv: Sequence[str],
        *,
        user: str,
        env: Mapping[str, str] | None,
        action: str,
        stdin: bool = False,
    ) -> str:
        """An exec that is not started yet; gives its path."""
        body = {"Cmd": list(argv), "User": user, "AttachStdin": stdin, "AttachStdout": True, "AttachStderr": True}
        if env:
            body["Env"] = [f"{key}={value}" for key, value in env.items()]
        made = await self._caller.call("POST", f"/containers/{_seg(name)}/exec", action=action, body=body)
        return f"/exec/{_id(made)}"

    async def _has_terminal(self, name: str) -> bool:
        return bool((await self.inspect(name))["Config"].get("Tty"))


class Images(_Kind):
    """Images."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller, "image")

    async def inspect(self, name: str) -> Object:
        """The image of this reference or id. Raises NotFound."""
        path = f"/images/{quote(name, safe='/:@')}/json"
        return as_object(await self._caller.call("GET", path, action=self._named("inspect", name)))

    async def find(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[Object]:
        """All that match."""
        params = as_filters(filters)
        return as_list(await self._caller.call("GET", "/images/json", action="list images", params=params))

    async def tag(self, name: str, repository: str, tag: str) -> None:
        """Give an image one more name."""
        path, action = f"/images/{quote(name, safe='/:@')}/tag", self._named("tag", name)
        await self._caller.call("POST", path, action=action, params={"repo": repository, "tag": tag})

    async def remove(self, name: str) -> None:
        """Remove a name, and the image with its last one. Raises Conflict while a container uses it."""
        path, action = f"/images/{quote(name, safe='/:@')}", self._named("remove", name)
        await self._caller.call("DELETE", path, action=action)

    @asynccontextmanager
    async def pulling(
        self, reference: str, *, auth: Mapping[str, str] | None = None, opening_seconds: float = 60.0
    ) -> AsyncIterator[AsyncIterator[Object]]:
        """Pull to completion: the engine's progress lines. Leaving the block early ends the pull.

        `reference` must have a tag or digest, else every tag is pulled. `auth` is the API's AuthConfig. Raises
        EngineRefused for a pull that fails, at once or midway.
        """
        action = self._named("pull", reference)
        headers = {}
        if auth is not None:
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(json.dumps(dict(auth)).encode()).decode()
        async with self._caller.stream(
            "POST",
            "/images/create",
            action=action,
            params={"fromImage": reference},
            headers=headers,
            opening_seconds=opening_seconds,
        ) as chunks:
            yield Decoded(chunks, _Progress(action).feed)

    async def load(self, archive: BinaryIO, *, timeout_seconds: float = 300.0) -> None:
        """Load an archive made by `docker save`, from an open file. Raises EngineRefused for a broken one."""
        action = "load an image archive"
        answer = await self._caller.call(
            "POST",
            "/images/load",
            action=action,
            params={"quiet": 1},
            data=archive,
            headers={"Content-Type": "application/x-tar"},
            timeout_seconds=timeout_seconds,
        )
        lines = [answer] if isinstance(answer, dict) else JsonLines().feed((answer or b"") + b"\n")
        for line in lines:
            _raise_failure(line, action)


class _Progress:
    """Progress lines; one that says the pull failed is raised."""

    def __init__(self, action: str) -> None:
        self._action = action
        self._lines = JsonLines()

    def feed(self, data: bytes) -> list[Object]:
        lines = self._lines.feed(data)
        for line in lines:
            _raise_failure(line, self._action)
        return lines


def _raise_failure(line: Object, action: str) -> None:
    """A failure after the status was sent comes as a line of its own."""
    if "error" in line:
        raise EngineRefused(action, 500, str(line["error"]))


class Networks(_Kind):
    """Networks."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller, "network")

    async def create(self, spec: Mapping[str, Any]) -> str:
        """Make one; its id. Raises Conflict for a taken name, NotAManager for an overlay without Swarm."""
        action = self._named("create", str(spec["Name"]))
        body = {"CheckDuplicate": True, **spec}  # the default from API 1.44 on
        return _id(await self._caller.call("POST", "/networks/create", action=action, body=body))

    async def connect(self, name: str, container: str, endpoint: Mapping[str, Any] | None = None) -> None:
        """Attach a container. One already attached is 409 or 403: decide by inspect."""
        path, action = f"/networks/{_seg(name)}/connect", self._named(f"connect {container!r} to", name)
        body = {"Container": container, "EndpointConfig": endpoint or {}}
        await self._caller.call("POST", path, action=action, body=body, timeout_seconds=30.0)

    async def disconnect(self, name: str, container: str, *, force: bool = False) -> None:
        """Detach a container."""
        path, action = f"/networks/{_seg(name)}/disconnect", self._named(f"disconnect {container!r} from", name)
        body = {"Container": container, "Force": force}
        await self._caller.call("POST", path, action=action, body=body, timeout_seconds=30.0)


class Volumes(_Kind):
    """Volumes."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller, "volume")

    async def create(self, name: str, labels: Mapping[str, str] | None = None) -> Object:
        """Make one, or give the one there is, with the labels it has."""
        body, action = {"Name": name, "Labels": dict(labels or {})}, self._named("create", name)
        return as_object(await self._caller.call("POST", "/volumes/create", action=action, body=body))

    async def find(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[Object]:
        """All that match."""
        answer = await self._caller.call("GET", "/volumes", action="list volumes", params=as_filters(filters))
        return as_list(as_object(answer).get("Volumes"))


class Services(_Kind):
    """Swarm services."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller, "service")

    async def create(self, spec: Mapping[str, Any], *, timeout_seconds: float = 30.0) -> str:
        """Make one; its id. Raises Conflict for a taken name."""
        action = self._named("create", str(spec["Name"]))
        answer = await self._caller.call(
            "POST", "/services/create", action=action, body=spec, timeout_seconds=timeout_seconds
        )
        return _id(answer)

    async def update(
        self, name: str, version: int, spec: Mapping[str, Any], *, timeout_seconds: float = 30.0
    ) -> list[str]:
        """Replace the whole spec; the engine's warnings. Raises OutOfSequence when `version` is no longer current."""
        path, action = f"/services/{_seg(name)}/update", self._named("update", name)
        answer = await self._caller.call(
            "POST", path, action=action, params={"version": version}, body=spec, timeout_seconds=timeout_seconds
        )
        return [str(warning) for warning in (answer or {}).get("Warnings") or ()]

    async def logs(self, name: str, *, tail: int = 100) -> list[Output]:
        """The last lines of all its tasks' output."""
        params = {"stdout": 1, "stderr": 1, "tail": tail}
        action = self._named("read the output of", name)
        answer = await self._caller.call("GET", f"/services/{_seg(name)}/logs", action=action, params=params)
        return Frames().feed(answer or b"")


class Tasks:
    """Swarm tasks. There is no listing without filters: engines answer a wrong filter with every task there is."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def of_service(self, service: str, *, desired: Sequence[str] = ()) -> list[Object]:
        """Tasks of one service, newest first; `desired` limits them to desired states (`running`, `shutdown`).

        Raises NotFound where there is no such service.
        """
        filters = {"service": [service]} | ({"desired-state": list(desired)} if desired else {})
        action = f"list tasks of service {service!r}"
        tasks = as_list(await self._caller.call("GET", "/tasks", action=action, params=as_filters(filters)))
        return sorted(tasks, key=lambda task: str(task.get("CreatedAt", "")), reverse=True)

    async def inspect(self, task_id: str) -> Object:
        """The task of this id. Raises NotFound."""
        action = f"inspect task {task_id!r}"
        return as_object(await self._caller.call("GET", f"/tasks/{_seg(task_id)}", action=action))


class Nodes(_Kind):
    """Swarm nodes."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller, "node")

    async def update(self, node_id: str, version: int, spec: Mapping[str, Any]) -> None:
        """Replace its spec. Raises OutOfSequence when `version` is no longer current."""
        path, action = f"/nodes/{_seg(node_id)}/update", self._named("update", node_id)
        await self._caller.call("POST", path, action=action, params={"version": version}, body=spec)


class Payloads(_Kind):
    """Secrets, or configs: named bytes that never change. A secret's cannot be read back."""

    async def create(self, name: str, data: bytes, labels: Mapping[str, str] | None = None) -> str:
        """Make one; its id. Raises Conflict for a taken name."""
        body = {"Name": name, "Data": base64.b64encode(data).decode(), "Labels": dict(labels or {})}
        action = self._named("create", name)
        return _id(await self._caller.call("POST", f"{self._path}/create", action=action, body=body))

    async def update(self, name: str, version: int, spec: Mapping[str, Any]) -> None:
        """Replace its labels, all that may change. Raises OutOfSequence when `version` is no longer current."""
        path, action = f"{self._path}/{_seg(name)}/update", self._named("update", name)
        await self._caller.call("POST", path, action=action, params={"version": version}, body=spec)


class Swarm:
    """The cluster."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def inspect(self) -> Object:
        """The cluster as managers know it. Raises NotAManager."""
        return as_object(await self._caller.call("GET", "/swarm", action="inspect the swarm"))

    async def init(self, request: Mapping[str, Any], *, timeout_seconds: float = 30.0) -> str:
        """Begin one, with this node as its manager; the node's id."""
        answer = await self._caller.call(
            "POST", "/swarm/init", action="initialise the swarm", body=request, timeout_seconds=timeout_seconds
        )
        return str(answer)

    async def update(self, version: int, spec: Mapping[str, Any]) -> None:
        """Replace its spec. Raises OutOfSequence when `version` is no longer current."""
        params = {"version": version}
        await self._caller.call("POST", "/swarm/update", action="update the swarm", params=params, body=spec)
