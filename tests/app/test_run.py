"""One generation: through the gate or refused, watched, and ended with all that it started."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from supervisor.app import gate
from supervisor.app.front.model import Place
from supervisor.app.gate import HealthCheck, Passed
from supervisor.app.run import Ended, Run
from supervisor.app.spec import OnUnhealthy
from supervisor.process.child import Child
from tests.app.rig import Room, Word, crash, open_room, until
from tests.process.children import is_gone

pytestmark = pytest.mark.anyio

ANSWERS = """exec python3 -c '
import os, http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(open("status").read())); self.end_headers()
    def log_message(self, *about): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()'"""


async def test_generation_is_decided_once_it_passed_the_gate() -> None:
    async with open_room() as room:
        run = await room.lineup.cohort.begin(room.spec(says=False))
        await until(lambda: run.generation.state.value == "starting")
        assert not run.decided.is_set()
        room.words[1].ready = True
        await run.decided.wait()
        assert run.refusal == ""
        assert run.is_fit
        assert run.why_unfit == ""


async def test_generation_that_ends_before_is_refused_at_once_with_what_it_wrote() -> None:
    async with open_room() as room:
        run = await room.lineup.cohort.begin(room.spec("echo no config; exit 9", says=False))
        await run.decided.wait()
        assert run.refusal.startswith("exited with 9 before it was healthy")
        assert run.evidence is not None
        assert run.evidence.output == ("no config",)
        assert run.trouble == Ended(run.refusal)
        await run.gone.wait()
        assert room.states(1) == ["starting", "failed"]


async def test_generation_that_does_not_get_healthy_is_refused_with_a_hint_and_lives_until_dismissed() -> None:
    async with open_room() as room:
        spec = room.spec(must_say_ready=False, check=HealthCheck("tcp", 0), start_seconds=0.2)
        run = await room.lineup.cohort.begin(spec)
        await run.decided.wait()
        assert "not healthy after 0.2 s" in run.refusal
        assert f"it listens on no port; let it listen on the port in PORT ({run.place.port})" in run.refusal
        assert run.child.alive
        run.dismiss("no use")
        await run.gone.wait()
        assert is_gone(run.child.pid)


async def test_generation_that_dies_as_it_passes_the_gate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last good answer and the end can come in one turn of the loop; then no cancellation comes between."""

    async def pass_gate(child: Child, *rest: Any) -> Passed:
        with anyio.CancelScope(shield=True):
            await child.wait()
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
        return Passed("", 2)

    monkeypatch.setattr(gate, "pass_gate", pass_gate)
    async with open_room() as room:
        run = await room.lineup.cohort.begin(room.spec("exit 3"))
        await run.gone.wait()
        assert "exited with 3" in run.refusal
        assert not run.is_fit


async def test_end_of_a_good_one_is_its_trouble() -> None:
    async with open_room() as room:
        run = await room.begin()
        crash(run)
        await run.troubled.wait()
        assert run.trouble == Ended("killed by SIGKILL")
        assert run.why_unfit == "killed by SIGKILL"


async def test_first_trouble_counts() -> None:
    async with open_room() as room:
        run = await room.begin()
        run.report(Ended("first"))
        run.report(Ended("second"))
        assert run.trouble == Ended("first")


async def test_dismissal_before_its_first_step_counts() -> None:
    async with open_room() as room:
        run = await room.lineup.cohort.begin(room.spec(says=False))
        run.dismiss("at once")
        await run.gone.wait()
        assert is_gone(run.child.pid)
        assert run.refusal == "at once"
        assert run.trouble is None  # it was asked for


async def test_dismissal_ends_what_it_started_too() -> None:
    async with open_room() as room:
        run = await room.begin(room.spec("sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.1; done' & sleep 60"))
        await until(lambda: bool(room.ring.tail(1)))
        worker = int(room.ring.tail(1)[0].text)
        run.dismiss("replaced", 0.1)
        await run.gone.wait()
        assert is_gone(worker)


async def served(room: Room, folder: Any, **changes: Any) -> Run:
    """A server that answers with the status in the file `status`, asked every 20 ms."""
    (folder / "status").write_text("200")
    check = HealthCheck("http", 0, "/")
    values: dict[str, Any] = {"must_say_ready": False, "check": check, "interval_seconds": 0.02, "retries": 3}
    spec = room.spec(f"cd {folder}; {ANSWERS}", **{**values, **changes})
    return await room.serve(spec)


async def test_hung_one_is_reported_after_its_retries(tmp_path: Any) -> None:
    async with open_room() as room:
        run = await served(room, tmp_path)
        (tmp_path / "status").write_text("500")
        await run.troubled.wait()
        assert run.trouble is not None
        assert run.trouble.hung
        assert "3 liveness probes in a row failed" in run.trouble.reason
        assert run.child.alive


async def test_hung_one_that_is_only_to_be_told_serves_on(tmp_path: Any) -> None:
    async with open_room() as room:
        run = await served(room, tmp_path, on_unhealthy=OnUnhealthy.NONE)
        (tmp_path / "status").write_text("500")
        await until(lambda: room.lineup._health.value == "unhealthy")
        (tmp_path / "status").write_text("200")
        await until(lambda: room.lineup._health.value == "healthy")
        assert run.is_fit


async def test_one_bad_answer_is_enough_in_the_bake() -> None:
    async with open_room() as room:
        run = await room.begin(beside=True)
        assert run._pace().retries == 1
        run.baking = False
        assert run._pace().retries == 3


async def test_probe_goes_to_its_own_place() -> None:
    async with open_room() as room:
        run = await room.begin()
        assert (run.check.host, run.check.port) == (run.place.host, run.place.port)
        assert run.place != Place("", "", 0)
        assert isinstance(room.words[1], Word)
