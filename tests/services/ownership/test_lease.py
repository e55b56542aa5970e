"""Who has a stack: judged from recorded claims, and fought for on a real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import anyio
import pytest

from supervisor.core.errors import ConfigurationError
from supervisor.engine.client import Endpoint, Engine
from supervisor.engine.errors import EngineRefused
from supervisor.engine.labels import INSTALL, LEASE, LEASE_SIGNED, STACK
from supervisor.engine.resources import Containers, Nodes, Payloads
from supervisor.services.ownership.lease import (
    LIVE_SECONDS,
    Claim,
    Held,
    Holder,
    Lease,
    LeaseEngine,
    Sight,
    Take,
    judge_claim,
    read_claim,
    see_container,
)
from supervisor.services.swarm.spec import Owner
from tests.contracts.engine_made import engine_of, ready_swarm
from tests.engine_rig.engine import Share

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
US = Holder(container="", hostname="here", process="pid 1, start 5, boot b", node="n1")
THEM = Holder(container="", hostname="there", process="pid 1, start 9, boot b", node="n1")
IN_A_CONTAINER = replace(THEM, container="c" * 64)
OURS = Claim("install-1", US, NOW)
UNSEEN = Sight(None, "a supervisor on 'there'")


def theirs(*, age: float = 5.0, install: str = "install-2", holder: Holder = THEM) -> Claim:
    return Claim(install, holder, NOW - timedelta(seconds=age))


# --- decisions ----------------------------------------------------------------------------------------------------


def test_claim_is_read_as_it_was_written() -> None:
    claim = theirs(holder=IN_A_CONTAINER)
    labels = claim.labels("notes")
    assert read_claim(labels) == claim
    assert labels[LEASE] == IN_A_CONTAINER.container
    assert (labels[INSTALL], labels[STACK]) == ("install-2", "notes")


@pytest.mark.parametrize("labels", [None, {}, {LEASE: ""}, {LEASE: "c1", INSTALL: "i"}])
def test_lease_that_nobody_signed_is_free(labels: dict[str, str] | None) -> None:
    assert read_claim(labels) is None


def test_signature_that_cannot_be_read_is_old() -> None:
    claim = read_claim({LEASE: "", LEASE_SIGNED: "yesterday"})
    assert claim is not None
    assert isinstance(judge_claim(claim, UNSEEN, us=OURS), Take)


@pytest.mark.parametrize(
    ("claim", "sight", "alone", "taken"),
    [
        (replace(theirs(), holder=US), UNSEEN, False, True),  # this very process
        (theirs(install="install-1"), UNSEEN, False, True),  # our state folder's lock is ours, so that one is gone
        (theirs(age=LIVE_SECONDS - 1), UNSEEN, False, False),
        (theirs(age=LIVE_SECONDS), UNSEEN, False, True),
        (theirs(age=-5), UNSEEN, False, False),  # its clock is a little ahead
        (theirs(age=-LIVE_SECONDS), UNSEEN, False, True),
        (theirs(), UNSEEN, True, True),
        (theirs(age=9999, holder=IN_A_CONTAINER), Sight(True, "container 'web'"), False, False),
        (theirs(age=9999, install="install-1", holder=IN_A_CONTAINER), Sight(True, "container 'web'"), True, False),
        (theirs(age=0, holder=IN_A_CONTAINER), Sight(False, "container 'web' is gone"), False, True),
    ],
)
def test_stack_is_taken_from_who_is_gone_only(claim: Claim, sight: Sight, alone: bool, taken: bool) -> None:
    assert isinstance(judge_claim(claim, sight, us=OURS, alone=alone), Take if taken else Held)


def test_same_container_renews_whatever_its_run() -> None:
    us = replace(OURS, holder=replace(IN_A_CONTAINER, process="pid 1, start 77, boot b"))
    assert judge_claim(theirs(holder=IN_A_CONTAINER), Sight(True, "us"), us=us) == Take()


def test_taking_over_is_said_and_renewing_is_not() -> None:
    assert judge_claim(replace(theirs(), holder=US), UNSEEN, us=OURS) == Take("")
    taken = judge_claim(theirs(age=99), UNSEEN, us=OURS)
    assert isinstance(taken, Take)
    assert "has not signed for 60 s" in taken.said


@pytest.mark.parametrize(
    ("state", "runs"),
    [
        ({"Running": True, "StartedAt": "2026-01-01T10:00:00Z"}, True),
        ({"Running": True, "Paused": True}, True),
        ({"Running": False, "Restarting": True}, True),
        ({"Running": False, "Status": "exited"}, False),
        ({"Running": False, "Status": "created"}, False),
    ],
)
def test_container_that_runs_or_comes_back_lives(state: dict[str, object], runs: bool) -> None:
    assert see_container({"Id": "c" * 64, "Name": "/web", "State": state}).runs is runs


# --- a real engine ------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """One stack on the engine, and those who want it."""

    share: Share
    engine: Engine
    stack: str
    said: list[str] = field(default_factory=list)

    def lease(
        self,
        container: str = "",
        *,
        install: str = "install-1",
        hostname: str = "here",
        age: float = 0,
        engine: LeaseEngine | None = None,
    ) -> Lease:
        holder = Holder(container=container, hostname=hostname, process=f"pid 1 on {hostname}")
        return Lease(
            engine or self.engine,
            Owner(install, self.stack),
            holder,
            tell=self.said.append,
            clock=lambda: datetime.now(UTC) - timedelta(seconds=age),
            sign_seconds=0.05,
        )

    def box(self, word: str) -> str:
        """A container that runs; its id."""
        name = self.share.start(self.share.engine.image("base"), "sleep", "600", word=word)
        return self.share.engine.output("inspect", "--format", "{{.Id}}", name)

    async def labels(self) -> dict[str, str]:
        found = await self.engine.configs.inspect(f"{self.stack}-supervisor-lease")
        return dict(found["Spec"]["Labels"])


@pytest.fixture
def leased(docker: Share) -> Iterator[Share]:
    ready_swarm(docker)
    yield docker
    docker.engine.run("config", "rm", f"{docker.prefix}-supervisor-lease", check=False)


@pytest.fixture
async def stage(leased: Share) -> AsyncIterator[Stage]:
    async with engine_of(leased) as engine:
        yield Stage(leased, engine, leased.prefix)


@asynccontextmanager
async def signing(lease: Lease) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        await group.start(lease.run)
        yield
        group.cancel_scope.cancel()


class _Together:
    """Configs that nobody has read before all `parties` have: what one writes then, the others have not seen."""

    def __init__(self, configs: Payloads, parties: int) -> None:
        self._configs = configs
        self._missing = parties
        self._all = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._configs, name)

    async def inspect(self, name: str) -> dict[str, Any]:
        try:
            return await self._configs.inspect(name)
        finally:
            self._missing -= 1
            if self._missing <= 0:
                self._all.set()
            await self._all.wait()


@dataclass
class _AtOnce:
    configs: _Together
    containers: Containers
    nodes: Nodes


@pytest.mark.engine
@pytest.mark.parametrize("before", ["never taken", "given back", "held by one that is gone"])
async def test_of_two_supervisors_that_start_at_once_one_gets_the_stack(stage: Stage, before: str) -> None:
    if before != "never taken":
        await stage.lease("a" * 64).take()
    if before == "given back":
        await stage.lease("a" * 64).release()
    boxes = {word: stage.box(word) for word in ("one", "two")}
    client = stage.engine
    engine = cast(LeaseEngine, _AtOnce(_Together(client.configs, len(boxes)), client.containers, client.nodes))
    leases = [stage.lease(box, install=f"install-{word}", engine=engine) for word, box in boxes.items()]
    outcomes: list[str] = []

    async def take(lease: Lease) -> None:
        try:
            await lease.take()
            outcomes.append("taken")
        except ConfigurationError as error:
            outcomes.append(str(error))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for lease in leases:
                group.start_soon(take, lease)
    taken, refused = sorted(outcomes, key=lambda text: text != "taken")
    assert taken == "taken"
    assert refused.startswith(f"cannot run a second supervisor of stack '{stage.stack}' on this engine: container ")
    assert "running since 20" in refused
    assert "docker stop" in refused
    assert "SUPERVISOR_STACK" in refused


@pytest.mark.engine
async def test_stack_of_a_container_that_was_stopped_is_taken_over(stage: Stage) -> None:
    first, second = stage.box("one"), stage.box("two")
    await stage.lease(first, install="install-1").take()
    with pytest.raises(ConfigurationError):
        await stage.lease(second, install="install-2").take()
    await anyio.to_thread.run_sync(lambda: stage.share.engine.run("stop", "--time", "0", first))
    await stage.lease(second, install="install-2").take()
    assert (await stage.labels())[LEASE] == second
    assert "the former supervisor, does not run" in stage.said[0]


@pytest.mark.engine
async def test_stack_of_a_container_that_was_removed_is_taken_over(stage: Stage) -> None:
    first = stage.box("one")
    await stage.lease(first).take()
    await anyio.to_thread.run_sync(lambda: stage.share.engine.run("rm", "--force", first))
    await stage.lease("f" * 64, install="install-2").take()
    assert "is gone" in stage.said[0]


@pytest.mark.engine
async def test_container_takes_its_own_stack_again_in_silence(stage: Stage) -> None:
    box = stage.box("one")
    await stage.lease(box, hostname="before").take()
    await stage.lease(box, hostname="after").take()
    assert stage.said == []


@pytest.mark.engine
async def test_holder_that_is_no_container_lives_while_it_signs(stage: Stage) -> None:
    first = stage.lease(install="install-1", hostname="one", age=LIVE_SECONDS + 10)
    await first.take()
    second = stage.lease(install="install-2", hostname="two")
    first._clock = lambda: datetime.now(UTC)
    before = (await stage.labels())[LEASE_SIGNED]
    async with signing(first):
        with anyio.fail_after(10):
            while (await stage.labels())[LEASE_SIGNED] == before:
                await anyio.sleep(0.01)
        with pytest.raises(ConfigurationError, match=r"a supervisor on 'one'.* which signed"):
            await second.take()


@pytest.mark.engine
async def test_holder_that_lost_the_stack_is_told(stage: Stage) -> None:
    first = stage.lease(install="install-1", hostname="one", age=LIVE_SECONDS + 10)
    await first.take()
    await stage.lease(install="install-2", hostname="two").take()
    assert "has not signed" in stage.said[0]
    with anyio.fail_after(10), pytest.raises(ConfigurationError, match=r"a supervisor on 'two'.*has taken it over"):
        await first.run()


@pytest.mark.engine
async def test_lease_that_somebody_removed_is_signed_anew(stage: Stage) -> None:
    lease = stage.lease()
    await lease.take()
    await stage.engine.configs.remove(lease.name)
    await lease.sign()
    assert LEASE_SIGNED in await stage.labels()


@pytest.mark.engine
async def test_released_stack_is_free_for_others(stage: Stage) -> None:
    first, second = stage.lease(hostname="one"), stage.lease(install="install-2", hostname="two")
    await first.take()
    await second.release()  # it is not its own to give
    with pytest.raises(ConfigurationError):
        await second.take()
    await first.release()
    assert LEASE_SIGNED not in await stage.labels()
    await second.take()
    assert stage.said == []


@pytest.mark.engine
async def test_config_of_somebody_else_is_left_alone(stage: Stage) -> None:
    await stage.engine.configs.create(f"{stage.stack}-supervisor-lease", b"theirs", {"theirs": "1"})
    with pytest.raises(ConfigurationError, match="none of a supervisor's"):
        await stage.lease().take()
    assert await stage.labels() == {"theirs": "1"}


@pytest.mark.engine
async def test_container_on_a_node_that_swarm_knows_is_alive(stage: Stage) -> None:
    node = str((await stage.engine.info())["Swarm"]["NodeID"])
    elsewhere = Holder(container="d" * 64, hostname="far", process="pid 1", node=node)
    await Lease(stage.engine, Owner("install-2", stage.stack), elsewhere).take()
    near = Holder(container="e" * 64, hostname="near", process="pid 1", node="another-node")
    with pytest.raises(ConfigurationError, match=f"on Swarm node '{node}'"):
        await Lease(stage.engine, Owner("install-1", stage.stack), near).take()


class _Configs:
    """Refuses as a Swarm without a leader does, and says when it was asked twice."""

    def __init__(self) -> None:
        self.asked = 0
        self.again = anyio.Event()

    async def inspect(self, name: str) -> dict[str, Any]:
        self.asked += 1
        if self.asked > 1:
            self.again.set()
        raise EngineRefused("inspect it", 500, "The swarm does not have a leader")


class _Engine:
    def __init__(self) -> None:
        self.configs = _Configs()


async def test_holder_signs_on_after_a_refusal() -> None:
    engine = _Engine()
    async with signing(Lease(cast(LeaseEngine, engine), Owner("install-1", "notes"), US, sign_seconds=0.01)):
        with anyio.fail_after(5):
            await engine.configs.again.wait()


async def test_container_of_the_engine_need_not_sign() -> None:
    engine = _Engine()
    with anyio.fail_after(5):
        await Lease(cast(LeaseEngine, engine), Owner("install-1", "notes"), IN_A_CONTAINER, sign_seconds=0.01).run()
    assert engine.configs.asked == 0


async def test_release_of_an_engine_that_is_gone_is_silent_and_quick(tmp_path_factory: pytest.TempPathFactory) -> None:
    engine = Engine(Endpoint(f"unix://{tmp_path_factory.mktemp('e')}/no.sock"))
    try:
        with anyio.fail_after(4):
            await Lease(engine, Owner("install-1", "notes"), US).release()
    finally:
        engine.close()
