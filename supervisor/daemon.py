"""The composition root: builds every part, connects them, owns the one tree of tasks, and ends it in order."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from supervisor import __version__
from supervisor.app_reload import AppReload
from supervisor.apps_start import AppsStart
from supervisor.boot import Boot, end_earlier_processes
from supervisor.controller import Controller
from supervisor.core.errors import BootDeadlineError, ExitCode, SupervisorError
from supervisor.core.events import Errored, EventBus, Notice, SupervisorStarted, Warned
from supervisor.core.groups import plain_errors
from supervisor.core.requests import Request, Verb
from supervisor.core.settings import Loaded
from supervisor.fronts import Fronts
from supervisor.keeping import Keeper
from supervisor.migrate import migrate
from supervisor.observe.eventlog import EventLog
from supervisor.observe.log import LogSink
from supervisor.observe.logfiles.rotation import Keeping
from supervisor.observe.overall import OverallFold
from supervisor.observe.status import StatusFold
from supervisor.open_log import open_log
from supervisor.orderly_stop import stop_in_order
from supervisor.orders import Orders
from supervisor.parts import Parts
from supervisor.planning.home import AppHome
from supervisor.planning.part import AppPart
from supervisor.process.meter import Rate
from supervisor.process.pid1 import Reaping, adopt_orphans
from supervisor.process.reaper import Reaper
from supervisor.rings import Rings
from supervisor.rollout.rollouts import Rollouts
from supervisor.stack.placement import Placement, find_placement
from supervisor.state import Paths, State
from supervisor.triggers.control import ControlServer
from supervisor.triggers.files import TriggerFile, stamp
from supervisor.triggers.signals import Meaning, SignalLoop, meaning, name_of
from supervisor.verified import VerifiedFacts

Reread = Callable[[Reaper], Awaitable[Loaded]]
_FLUSH_SECONDS = 1.0
# Python's own 5 ms is what each turn of the loop waits while the log's thread renders a flood.
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class Entry:
    """What `__main__` found: signals latched so far, and the mask and ignored signals of the start."""

    latched: list[int]
    mask: frozenset[int]
    ignored: frozenset[int]


def run_daemon(loaded: Loaded, entry: Entry, reread: Reread) -> int:
    """Run until stopped; gives the exit code. Errors are in the log by then.

    `reread` gives the settings as the sources say when it is called; what it runs is a child of the reaper.
    """
    settings = loaded.settings
    sys.setswitchinterval(_SWITCH_SECONDS)
    keeping = Keeping(settings.log_max_mib * 1024 * 1024, settings.log_max_days, settings.log_keep)
    sink = open_log(settings.log_format, settings.log_level, folder=settings.log_dir, keeping=keeping)
    code = ExitCode.INTERNAL
    try:
        daemon = Daemon(loaded, entry, sink, reread)
        with plain_errors():
            code = anyio.run(daemon.run, backend="asyncio")
    except SupervisorError as error:
        sink.publish(Errored(message=str(error)))
        code = error.exit_code
    except Exception:
        sink.publish(Errored(message="internal error", detail=traceback.format_exc()))
    finally:
        sink.close(_FLUSH_SECONDS)
    return int(code)


class Daemon:
    """One supervisor. Raises our errors from the constructor where the state cannot be opened."""

    def __init__(self, loaded: Loaded, entry: Entry, sink: LogSink, reread: Reread) -> None:
        self._loaded = loaded
        self._settings = loaded.settings
        self._reread = reread
        self._warnings = loaded.warnings
        self._entry = entry
        self._sink = sink
        self._bus = EventBus()
        self._events = EventLog()
        self._status = StatusFold(
            services=self._settings.user_services,
            apps=self._settings.app_names,
            orphans_reaped=lambda: self._reaper.orphans_reaped,
            output_dropped=lambda: self._rings.dropped(),
            log_lines_lost=lambda: sink.lines_lost,
        )
        self._overall = OverallFold(self._bus.publish, apps=self._settings.app_names)
        # The overall state comes last: it publishes its own event from within others.
        for subscriber in (sink.publish, self._events.publish, self._status.publish, self._overall):
            self._bus.subscribe(subscriber)
        self._publish = self._bus.publish
        self._reaping = adopt_orphans()
        self._state = State(Paths.of(self._settings, dict(os.environ)))
        rate = Rate(self._settings.log_rate_lines, self._settings.log_rate_mib * 1024 * 1024)
        self._bus.subscribe(VerifiedFacts(self._state.install.verified, self._state.save).observe)
        self._rings = Rings(sink.line, rate=rate, on_dropped=sink.dropped, keep_whole=sink.redactor.keep_whole)
        self._reaper = Reaper(
            install_id=self._state.install.uuid,
            entry_mask=entry.mask,
            entry_ignored=entry.ignored,
            spawn_log=self._state.spawned,
        )
        self._parts: Parts | None = None
        self._boot: Boot | None = None
        self._triggers: list[TriggerFile] = []
        self._keeper: Keeper | None = None
        self._fronts: Fronts | None = None
        self._orders = Orders()
        self._controller = Controller(
            self._orders.carry_out,
            self._publish,
            apps=self._settings.app_names,
            start_over=self._orders.start_over,
            decide=self._orders.decide,
            hurry=self._orders.end_canary,
        )
        self._rollouts = Rollouts(
            self._settings,
            self._state.paths.state,
            environ=dict(os.environ),
            reaper=self._reaper,
            turn=self._controller.turn,
            publish=self._publish,
            subscribe=self._bus.subscribe,
        )
        self._ended: set[str] = set()
        """Apps that ended by themselves, and in order."""
        self._stop = anyio.Event()
        self._stop_signals = 0
        self._error: SupervisorError | None = None
        self._outer: TaskGroup | None = None

    async def run(self) -> ExitCode:
        """Boot, serve, stop in order."""
        async with anyio.create_task_group() as outer:
            self._outer = outer
            await outer.start(self._reaper.run)
            await outer.start(SignalLoop(self._entry.latched, self._on_signal).run)
            self._announce()
            async with anyio.create_task_group() as parts:
                async with anyio.create_task_group() as work:
                    work.start_soon(self._live, parts)
                    await self._stop.wait()
                    work.cancel_scope.cancel()
                self._overall.stopping()
                if self._parts is not None:
                    await stop_in_order(self._parts)
                parts.cancel_scope.cancel()
            await self._reaper.end_all()
            outer.cancel_scope.cancel()
        if self._error is not None:
            self._publish(Errored(message=str(self._error)))
            return self._error.exit_code
        return ExitCode.OK

    def _announce(self) -> None:
        self._publish(
            SupervisorStarted(
                version=__version__, pid=os.getpid(), mode=self._settings.mode, reaping=self._reaping.value
            )
        )
        for warning in self._warnings:
            self._publish(Warned(message=warning))
        if self._reaping is Reaping.NONE:
            self._publish(
                Warned(
                    message="orphaned processes cannot be reaped: not PID 1, and the kernel has no subreaper for us",
                    detail="run as the container's ENTRYPOINT, or without --init",
                )
            )

    async def _live(self, parts: TaskGroup) -> None:
        """Boot, then serve. Every failure ends in an orderly stop with its exit code."""
        try:
            with anyio.fail_after(self._settings.boot_seconds):
                await self._bring_up(parts)
        except TimeoutError:
            trouble = self._parts.orchestrator.trouble() if self._parts is not None else ""
            why = f"; {trouble}" if trouble else ""
            self._fail(BootDeadlineError(f"cannot finish the boot within {self._settings.boot_seconds:g} s{why}"))
        except SupervisorError as error:
            self._fail(error)
        except Exception:
            self._fail(SupervisorError("internal error in the boot\n" + traceback.format_exc()))
        else:
            self._settle_memory()
            await self._serve()

    async def _bring_up(self, parts: TaskGroup) -> None:
        """Start the long-lived parts in `parts`, where they outlive a cancelled boot until the orderly stop."""
        await parts.start(self._control().run)
        # Before anything is built: leftovers hold the ports that are chosen then.
        await end_earlier_processes(self._state, self._publish)
        self._fronts = Fronts(
            self._settings,
            dict(os.environ),
            apps=self._settings.app_names,
            state=self._state,
            reaper=self._reaper,
            ring=self._rings.ring,
            publish=self._publish,
            redact=self._sink.redactor.text,
        )
        # Before all that is slow: from here on clients are told what is awaited.
        await parts.start(self._fronts.run)
        self._bus.subscribe(self._fronts.page.publish)
        placement = await find_placement(self._settings, dict(os.environ), self._state, self._publish)
        homes = await self._rollouts.open()
        made = self._build(placement, homes)
        await parts.start(made.orchestrator.run)
        if made.stack is not None:
            await parts.start(made.stack.run)
        for part in made.apps.values():
            await parts.start(part.app.run)
        await self._boot_of(made).run()

    def _build(self, placement: Placement, homes: Mapping[str, AppHome]) -> Parts:
        assert self._fronts is not None
        self._parts = Parts(
            self._loaded,
            dict(os.environ),
            placement=placement,
            state=self._state,
            fronts=self._fronts,
            homes=homes,
            reaper=self._reaper,
            rings=self._rings,
            publish=self._publish,
            register_secret=self._sink.register_secret,
            on_app_end=self._app_ended,
            on_essential_failure=self._fail,
        )
        # Before anything is started: a touch during the boot is a wish for a reload, one before it is not.
        self._triggers = self._triggers_of(self._parts)
        return self._parts

    def _boot_of(self, parts: Parts) -> Boot:
        self._rollouts.connect(parts.apps.values())
        starts = AppsStart(parts.apps.values(), self._rollouts.by_app, self._publish, hold=parts.hold)
        self._boot = Boot(parts, starts, self._publish)
        reload = AppReload(
            parts.apps,
            reread=partial(self._reread, self._reaper),
            migrate=partial(migrate, publish=self._publish),
            prove_routes=self._boot.prove_routes,
        )
        self._orders.begin(parts, reload)
        return self._boot

    def _control(self) -> ControlServer:
        return ControlServer(
            self._state.paths.socket,
            read_status=self._status.as_dict,
            submit=self._controller.submit,
            events=self._events,
            logs=self._rings,
            redact=self._sink.redactor.value,
            releases=self._rollouts.desk,
            keeping=lambda: self._keeper,
        )

    def _triggers_of(self, parts: Parts) -> list[TriggerFile]:
        """A file of one app reloads that, one that they share all of them."""
        by_path: dict[Path, list[AppPart]] = {}
        for part in parts.apps.values():
            by_path.setdefault(part.trigger_path, []).append(part)
        found: list[TriggerFile] = []
        for path, sharing in by_path.items():
            target = sharing[0].name if len(sharing) == 1 else ""
            ask = partial(self._controller.request, Request(Verb.RELOAD, "file", target))
            found.append(TriggerFile(path, ask, seen=stamp(path)))
        return found

    async def _serve(self) -> None:
        assert self._parts is not None
        assert self._boot is not None
        self._keeper = Keeper(self._parts, self._controller.turn, self._publish)
        async with anyio.create_task_group() as group:
            await group.start(self._controller.run)
            for trigger in self._triggers:
                await group.start(trigger.run)
            group.start_soon(self._boot.after)
            group.start_soon(self._boot.watch_routes)
            if self._parts.places.redis is not None:
                self._bus.subscribe(self._parts.places.redis.observe)
                group.start_soon(self._parts.places.redis.keep)
            self._rollouts.watch(group)

    @staticmethod
    def _settle_memory() -> None:
        """Give back what only the boot needed; the idle collector then has nothing old to walk."""
        gc.collect()
        gc.freeze()
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)

    def _app_ended(self, name: str, error: SupervisorError | None) -> None:
        """Of several apps one that ends in order leaves the others to serve on."""
        if error is not None:
            self._fail(error)
            return
        self._ended.add(name)
        if left := [app for app in self._settings.app_names if app not in self._ended]:
            text = f"the app {name!r} ended by itself with exit status 0 and stays stopped; {', '.join(left)} go on"
            self._publish(Notice(message=text))
            return
        self._publish(Notice(message="the app ended by itself with exit status 0: stopping in order"))
        self._stop.set()

    def _fail(self, error: SupervisorError) -> None:
        """End everything in order, with the error's exit code; the first one counts."""
        if self._error is None and not self._stop.is_set():
            self._error = error
        self._stop.set()

    def _on_signal(self, number: int) -> None:
        match meaning(number):
            case Meaning.RELOAD:
                self._controller.post(Request(Verb.RELOAD, "signal HUP"))
            case Meaning.STOP:
                self._ask_stop(name_of(number))
            case Meaning.DUMP:
                self._dump()
                self._ask_stop("QUIT")
            case Meaning.FORWARD:
                for app in self._parts.running_apps if self._parts is not None else []:
                    app.signal(number)

    def _ask_stop(self, name: str) -> None:
        self._stop_signals += 1
        if self._stop_signals == 1:
            self._publish(Notice(message=f"signal {name}: stopping in order"))
        elif self._stop_signals == 2 and self._outer is not None:
            self._publish(Warned(message=f"second signal {name}: killing everything now"))
            self._outer.start_soon(self._reaper.end_all)
        self._stop.set()

    @staticmethod
    def _dump() -> None:
        """Tasks and stacks to standard error, for whoever wonders what hangs."""
        for task in asyncio.all_tasks():
            task.print_stack(limit=8, file=sys.stderr)
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
