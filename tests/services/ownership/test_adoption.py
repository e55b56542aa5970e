"""What is there of a stack: every case of whose it is, and stacks really taken over, with all that was in them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.engine.client import Engine
from supervisor.engine.labels import INSTALL, owned
from supervisor.services.ownership.adoption import Adoption, Standing, data_volume, plan_adoption, standing
from supervisor.services.ownership.handover import is_written, keep_redis_data, only_file, rescue_acme
from supervisor.services.ownership.passwords import ensure_secret, reset_postgres_password
from supervisor.services.ownership.survey import Found, Mounted, Survey, read_service, survey
from supervisor.services.swarm.driver import SwarmDriver
from supervisor.services.swarm.reconcile import Keep, Plan, Update, plan_service
from supervisor.services.swarm.roles import (
    POSTGRES_SECRET_FILE,
    REDIS_CONFIG_FILE,
    Limits,
    Place,
    Volume,
    postgres_service,
    postgres_target,
    redis_config,
    redis_service,
)
from supervisor.services.swarm.spec import DataService, HealthCheck, Owner, SecretFile, ServiceBody, service_body
from tests.contracts.engine_made import engine_of, ready_swarm
from tests.engine_rig.engine import Share

pytestmark = pytest.mark.anyio
OWNER = Owner("install-1", "dokploy")
LOST = owned("install-0", "dokploy")
OURS = owned("install-1", "dokploy")
OTHER = owned("install-9", "other")
POSTGRES_DATA = "/var/lib/postgresql/data"

POSTGRES = Found(
    id="p1",
    name="dokploy-postgres",
    image="postgres:16",
    created="2026-01-01T00:00:00Z",
    mounts=(Mounted("volume", "dokploy-postgres-database", POSTGRES_DATA),),
    env=frozenset({"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}),
    settings={"POSTGRES_USER": "dokploy", "POSTGRES_DB": "dokploy"},
    ports=frozenset({5432}),
    networks=frozenset({"net1"}),
    node="node1",
    declared=frozenset({POSTGRES_DATA}),
    data_folder=POSTGRES_DATA,
)
REDIS = Found(
    id="r1",
    name="dokploy-redis",
    image="redis:7",
    created="2026-01-01T00:00:00Z",
    mounts=(Mounted("volume", "redis-data-volume", "/data"),),
    ports=frozenset({6379}),
    networks=frozenset({"net1"}),
    node="node1",
    declared=frozenset({"/data"}),
)
TRAEFIK = Found(id="t1", name="dokploy-traefik", image="traefik:v3.5.0", ports=frozenset({80, 443}))
ORIGINAL = Survey(
    stack="dokploy",
    node="node1",
    services={"postgres": POSTGRES, "redis": REDIS},
    traefik=TRAEFIK,
    network="net1",
    volumes={"dokploy-postgres-database": {}, "redis-data-volume": {}},
)


def plan(there: Survey, *, fresh: bool = True, adopt: bool = False, known: tuple[str, ...] = ()) -> Adoption:
    return plan_adoption(there, OWNER, fresh=fresh, adopt=adopt, known_volumes=known)


def made_by_us(labels: dict[str, str], **changes: Any) -> Survey:
    """A stack as we make it, with these labels."""
    postgres = replace(
        POSTGRES,
        labels=labels,
        image="postgres@sha256:1",
        mounts=(Mounted("volume", "dokploy-postgres", POSTGRES_DATA),),
    )
    redis = replace(REDIS, labels=labels, mounts=(Mounted("volume", "dokploy-redis", "/data"),))
    volumes = {f"dokploy-{role}": labels for role in ("postgres", "redis", "traefik")}
    made = Survey(
        stack="dokploy",
        node="node1",
        services={"postgres": postgres, "redis": redis},
        traefik=replace(TRAEFIK, labels=labels),
        network="net1",
        network_labels=labels,
        volumes=volumes,
    )
    return replace(made, **changes)


def with_postgres(**changes: Any) -> Survey:
    return replace(ORIGINAL, services={"postgres": replace(POSTGRES, **changes)}, traefik=None)


# --- whose it is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "whose"),
    [({}, Standing.UNLABELLED), (OURS, Standing.OURS), (LOST, Standing.LOST), (OTHER, Standing.OTHER)],
)
def test_labels_tell_whose_it_is(labels: dict[str, str], whose: Standing) -> None:
    assert standing(labels, OWNER) is whose


@pytest.mark.parametrize("fresh", [True, False])
def test_nothing_there_is_nothing_to_do(fresh: bool) -> None:
    assert plan(Survey(stack="dokploy"), fresh=fresh) == Adoption()


@pytest.mark.parametrize("adopt", [True, False])
def test_what_is_ours_is_nothing_to_do(adopt: bool) -> None:
    assert plan(made_by_us(OURS), fresh=False, adopt=adopt) == Adoption()


def test_ours_that_runs_for_the_first_time_is_nothing_to_do() -> None:
    assert plan(made_by_us(OURS, volumes={}), fresh=False) == Adoption()


def test_volume_taken_over_once_is_kept_for_ever() -> None:
    there = replace(ORIGINAL, services={"postgres": replace(POSTGRES, labels=OURS)}, traefik=None)
    assert plan(there, fresh=False) == Adoption(
        volumes={"postgres": Volume("dokploy-postgres-database", POSTGRES_DATA)}
    )


def test_lost_state_takes_its_install_back_and_asks_for_new_passwords() -> None:
    found = plan(made_by_us(LOST))
    assert found.install == "install-0"
    assert found.set_passwords
    assert found.volumes["postgres"] == Volume("dokploy-postgres", POSTGRES_DATA)
    assert found.images == {"postgres": "postgres@sha256:1", "redis": "redis:7"}
    assert found.services == frozenset()  # under that install they are ours
    assert found.replaced == ""
    assert "install-0: it was lost, and is taken back" in found.said[0]


@pytest.mark.parametrize(
    "there",
    [
        Survey(stack="dokploy", volumes={"dokploy-postgres": LOST}),
        Survey(stack="dokploy", network="net1", network_labels=LOST),
        Survey(stack="dokploy", traefik=replace(TRAEFIK, labels=LOST)),
    ],
)
def test_lost_state_is_known_by_whatever_is_left_of_it(there: Survey) -> None:
    assert plan(there).install == "install-0"


def test_another_install_of_the_stack_is_refused_where_our_state_is_there() -> None:
    with pytest.raises(ConfigurationError, match=r"'dokploy-postgres' .*install-0.*SUPERVISOR_ADOPT=1"):
        plan(made_by_us(LOST), fresh=False)


def test_another_install_of_the_stack_is_taken_over_on_the_users_word() -> None:
    found = plan(made_by_us(LOST), fresh=False, adopt=True)
    assert found.install == ""
    assert found.services == {"p1", "r1"}
    assert found.snapshot == ""  # a Redis of a supervisor has its append-only file
    assert found.replaced == "t1"
    assert found.set_passwords


def test_two_lost_installs_are_not_guessed_between() -> None:
    there = made_by_us(LOST)
    services = {**there.services, "redis": replace(there.services["redis"], labels=owned("install-00", "dokploy"))}
    with pytest.raises(ConfigurationError, match="SUPERVISOR_ADOPT=1"):
        plan(replace(there, services=services))


def test_stack_as_the_original_makes_it_is_taken_over() -> None:
    found = plan(ORIGINAL)
    assert found.volumes == {
        "postgres": Volume("dokploy-postgres-database", POSTGRES_DATA),
        "redis": Volume("redis-data-volume", "/data"),
    }
    assert found.images == {"postgres": "postgres:16", "redis": "redis:7"}
    assert found.services == {"p1", "r1"}
    assert (found.snapshot, found.replaced) == ("dokploy-redis", "t1")
    assert found.set_passwords
    assert found.install == ""
    assert "port 5432 is published no more" in found.said[0]
    assert found.covers({"ID": "p1"})
    assert not found.covers({"ID": "p2"})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"image": "pgvector/pgvector:pg16"}, "its image is no postgres"),
        ({"mounts": (Mounted("volume", "mine", POSTGRES_DATA),)}, "no volume 'dokploy-postgres' or"),
        ({"ports": frozenset({5432, 9187})}, "it publishes port 9187"),
        ({"networks": frozenset({"net2"})}, "it is not on network 'dokploy-network'"),
        ({"env": frozenset({"POSTGRES_USER"})}, "it was given no POSTGRES_PASSWORD"),
        ({"labels": OTHER}, "another stack's"),
    ],
)
def test_what_the_original_does_not_make_needs_the_users_word(changes: dict[str, Any], why: str) -> None:
    there = with_postgres(**changes)
    volumes: dict[str, dict[str, str]] = {mount.source: {} for mount in there.services["postgres"].mounts}
    there = replace(there, volumes=volumes)
    with pytest.raises(ConfigurationError) as caught:
        plan(there)
    text = str(caught.value)
    assert why in text
    for named in (there.services["postgres"].image, "2026-01-01T00:00:00Z", "SUPERVISOR_ADOPT=1"):
        assert named in text
    found = plan(there, adopt=True)
    assert found.services == {"p1"}
    assert found.volumes["postgres"].name in volumes


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"mounts": ()}, "is in no volume with a name"),
        ({"mounts": (Mounted("bind", "/srv/pg", POSTGRES_DATA),)}, "is in a bind mount of '/srv/pg'"),
        ({"mounts": (Mounted("volume", "", POSTGRES_DATA),)}, "is in a volume mount of 'no name'"),
        # The image's own volume lies over a mount above it, and has no name.
        ({"mounts": (Mounted("volume", "dokploy-postgres-database", "/var/lib/postgresql"),)}, "no volume with a name"),
        ({"settings": {**POSTGRES.settings, "PGDATA": "/pg"}}, "'/pg' is in no volume"),
        ({"settings": {"POSTGRES_USER": "app"}}, "its role is 'app' and its database 'app'"),
        ({"settings": {}}, "its role is 'postgres'"),
        ({"node": "node2"}, "on Swarm node node2"),
        ({"replicated": False}, "global service"),
    ],
)
@pytest.mark.parametrize("adopt", [True, False])
def test_data_that_would_be_hidden_is_refused_whatever_the_user_says(
    changes: dict[str, Any], why: str, adopt: bool
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan(with_postgres(**changes), adopt=adopt)
    if adopt:
        assert why in str(caught.value)
        assert "DATABASE_URL" in str(caught.value)


def test_volume_on_another_node_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'dokploy-postgres-database' is not on this engine"):
        plan(replace(ORIGINAL, volumes={}))


@pytest.mark.parametrize(
    ("mounts", "folder", "volume"),
    [
        ((Mounted("volume", "v", POSTGRES_DATA),), "", Volume("v", POSTGRES_DATA)),
        ((Mounted("volume", "v", POSTGRES_DATA),), f"{POSTGRES_DATA}/pgdata", Volume("v", POSTGRES_DATA)),
        ((Mounted("volume", "v", "/pg"), Mounted("bind", "/b", "/pg/conf")), "/pg/data", Volume("v", "/pg")),
        ((Mounted("volume", "v", "/pg"), Mounted("volume", "w", "/pg/data")), "/pg/data", Volume("w", "/pg/data")),
        ((Mounted("volume", "v", "/pgx"),), "/pg", None),
    ],
)
def test_data_is_in_the_mount_nearest_to_it(mounts: tuple[Mounted, ...], folder: str, volume: Volume | None) -> None:
    found = data_volume("postgres", replace(POSTGRES, mounts=mounts, settings={"PGDATA": folder}))
    assert found == volume if volume else isinstance(found, str)


def test_trusting_everybody_is_told() -> None:
    found = plan(with_postgres(settings={**POSTGRES.settings, "POSTGRES_HOST_AUTH_METHOD": "trust"}))
    assert any("without a password" in line for line in found.said)


@pytest.mark.parametrize("name", ["dokploy-postgres", "dokploy-postgres-database"])
def test_volume_without_its_service_needs_the_users_word(name: str) -> None:
    there = Survey(stack="dokploy", volumes={name: {}})
    with pytest.raises(ConfigurationError, match=f"cannot use volume '{name}'.*SUPERVISOR_ADOPT=1"):
        plan(there)
    assert plan(there, known=(name,)) == Adoption()
    found = plan(there, adopt=True)
    assert found.volumes == {"postgres": Volume(name, POSTGRES_DATA)}
    assert found.set_passwords


def test_old_volume_beside_one_of_ours_is_left_alone() -> None:
    assert (
        plan(Survey(stack="dokploy", volumes={"dokploy-postgres": OURS, "dokploy-postgres-database": {}})) == Adoption()
    )


@pytest.mark.parametrize("adopt", [True, False])
def test_snapshot_of_redis_that_ours_would_not_read_is_refused(adopt: bool) -> None:
    with pytest.raises(ConfigurationError, match="would not read the snapshot"):
        plan(Survey(stack="dokploy", volumes={"dokploy-redis": {}}), adopt=adopt)


def test_container_that_is_no_traefik_needs_the_users_word() -> None:
    there = Survey(stack="dokploy", traefik=replace(TRAEFIK, image="nginx:1"))
    with pytest.raises(ConfigurationError, match=r"'dokploy-traefik' .image nginx:1"):
        plan(there)
    assert plan(there, adopt=True).replaced == "t1"


@pytest.mark.parametrize(
    ("changes", "written"),
    [
        ({}, True),
        ({"aof_enabled": "0"}, False),
        ({"aof_rewrite_in_progress": "1"}, False),
        ({"aof_rewrite_scheduled": "1"}, False),
    ],
)
def test_append_only_file_is_whole_once_redis_says_so(changes: dict[str, str], written: bool) -> None:
    fields = {
        "aof_enabled": "1",
        "aof_rewrite_in_progress": "0",
        "aof_rewrite_scheduled": "0",
        "aof_last_bgrewrite_status": "ok",
    }
    text = "# Persistence\r\n" + "".join(f"{name}:{value}\r\n" for name, value in (fields | changes).items())
    assert is_written(text) is written
    assert not is_written("NOAUTH Authentication required.")


# --- laying our fields over theirs ----------------------------------------------------------------------------------

PLACE = Place(node="node1", network="net1")


def wish(volume: Volume) -> ServiceBody:
    wanted = postgres_service(
        owner=OWNER,
        place=PLACE,
        image="postgres@sha256:1",
        major=16,
        password=SecretFile("dokploy-postgres-abc", "secret1", POSTGRES_SECRET_FILE),
        limits=Limits(),
        volume=volume,
    )
    return service_body(wanted, api=(1, 45))


USERS_ENV = ("POSTGRES_USER=dokploy", "POSTGRES_DB=dokploy", "PGDATA=/x/pg", "TZ=UTC")


def theirs() -> dict[str, Any]:
    """As an engine shows what the original made, with what users add to it."""
    spec = {
        "Name": "dokploy-postgres",
        "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "postgres:16",
                "Command": ["docker-entrypoint.sh"],
                "Args": ["postgres", "-c", "max_connections=500"],
                "Env": [
                    "POSTGRES_USER=dokploy",
                    "POSTGRES_DB=dokploy",
                    "POSTGRES_PASSWORD=fixed",
                    "PGDATA=/x/pg",
                    "TZ=UTC",
                ],
                "Mounts": [
                    {"Type": "volume", "Source": "old", "Target": "/x"},
                    {"Type": "bind", "Source": "/dev/shm", "Target": "/dev/shm"},
                    {"Type": "bind", "Source": "/conf", "Target": "/conf"},
                ],
            },
            "RestartPolicy": {"Condition": "on-failure", "MaxAttempts": 3},
            "LogDriver": {"Name": "loki", "Options": {"loki-url": "http://l"}},
            "Networks": [{"Target": "net1", "Aliases": ["db"]}],
            "Placement": {"Constraints": ["node.role==manager"]},
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": {"Mode": "vip", "Ports": [{"TargetPort": 5432, "PublishedPort": 5432}]},
    }
    return {"ID": "s1", "Version": {"Index": 7}, "CreatedAt": "2026-01-01T00:00:00Z", "Spec": spec}


def test_take_over_keeps_the_data_and_closes_what_was_open() -> None:
    found = plan_service(wish(Volume("old", "/x")), theirs(), adopt=True)
    assert isinstance(found, Update)
    task = found.body["TaskTemplate"]
    container = task["ContainerSpec"]
    env = dict(entry.partition("=")[::2] for entry in container["Env"])
    assert (env["PGDATA"], env["TZ"], env["POSTGRES_USER"]) == ("/x/pg", "UTC", "dokploy")
    assert "POSTGRES_PASSWORD" not in env
    assert env["POSTGRES_PASSWORD_FILE"].endswith(POSTGRES_SECRET_FILE)
    mounts = {mount["Target"]: (mount["Type"], mount.get("Source")) for mount in container["Mounts"]}
    assert mounts == {"/x": ("volume", "old"), "/dev/shm": ("tmpfs", None), "/conf": ("bind", "/conf")}
    assert found.body["EndpointSpec"] == {"Mode": "dnsrr"}
    assert task["LogDriver"]["Name"] == "json-file"
    assert set(task["LogDriver"]["Options"]) == {"max-file", "max-size"}
    assert "MaxAttempts" not in task["RestartPolicy"]
    assert container["Args"] == ["postgres", "-c", "max_connections=500"]
    assert task["Networks"] == [{"Target": "net1", "Aliases": ["db"]}]
    assert "fixed" not in str(found.changes)
    again = {**theirs(), "Spec": found.body}
    assert plan_service(wish(Volume("old", "/x")), again, adopt=True) == plan_service(wish(Volume("old", "/x")), again)
    assert isinstance(plan_service(wish(Volume("old", "/x")), again), Keep)


@pytest.mark.parametrize("volume", [Volume("new", "/x"), Volume("old", "/y"), Volume("/conf", "/conf")])
def test_take_over_that_would_hide_the_data_is_refused(volume: Volume) -> None:
    with pytest.raises(ConfigurationError, match="start without its data"):
        plan_service(wish(volume), theirs(), adopt=True)


def test_service_of_ours_never_gets_another_volume_in_the_place_of_its_data() -> None:
    ours = {**theirs(), "Spec": wish(Volume("old", "/x"))}
    with pytest.raises(ConfigurationError, match="it has volume 'old' at '/x'"):
        plan_service(wish(Volume("new", "/x")), ours)


def test_command_of_theirs_does_not_stand_before_arguments_of_ours() -> None:
    config = SecretFile("dokploy-redis-abc", "secret1", REDIS_CONFIG_FILE)
    wanted = redis_service(
        owner=OWNER, place=PLACE, image="redis", config=config, limits=Limits(), volume=Volume("old", "/x")
    )
    found = plan_service(service_body(wanted, api=(1, 45)), theirs(), adopt=True)
    assert isinstance(found, Update)
    container = found.body["TaskTemplate"]["ContainerSpec"]
    assert "Command" not in container
    assert container["Args"][0] == "redis-server"


def test_service_is_read_from_its_inspection() -> None:
    image = {"Env": ["PGDATA=/var/lib/postgresql/18/docker"], "Volumes": {"/var/lib/postgresql": {}}}
    found = read_service(theirs(), node="node1", image=image)
    assert (found.id, found.name, found.image) == ("s1", "dokploy-postgres", "postgres:16")
    assert found.settings == {"POSTGRES_USER": "dokploy", "POSTGRES_DB": "dokploy", "PGDATA": "/x/pg"}
    assert "fixed" not in str(found)
    assert found.ports == {5432}
    assert found.networks == {"net1"}
    assert found.data_folder == "/var/lib/postgresql/18/docker"
    assert found.declared == {"/var/lib/postgresql"}


def test_archive_gives_its_only_file_or_nothing() -> None:
    assert only_file(b"no tar") is None
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("acme.json")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"{}"))
    assert only_file(packed.getvalue()) == b"{}"


# --- a real engine ------------------------------------------------------------------------------------------------

LIMIT_SECONDS = 90
OLD_PASSWORD = "fixed-for-everybody"


@dataclass
class Stage:
    """A stack of one test; its name is the test's own prefix."""

    share: Share
    engine: Engine
    network: str
    node: str
    plans: list[Plan] = field(default_factory=list)

    @property
    def stack(self) -> str:
        return self.share.prefix

    async def docker(self, *arguments: str, check: bool = True) -> str:
        done = await anyio.to_thread.run_sync(lambda: self.share.engine.run(*arguments, check=check))
        return done.stdout.strip()

    async def image(self, name: str) -> str:
        return await anyio.to_thread.run_sync(self.share.engine.image, name)

    async def make_original(self, role: str, volume: str, target: str, *options: str) -> None:
        """A data service as the original makes it; the port on the node is any, as this node is not ours alone."""
        port = {"postgres": 5432, "redis": 6379}[role]
        await self.docker(
            *("service", "create", "--detach", "--name", f"{self.stack}-{role}", "--network", f"{self.stack}-network"),
            *("--mount", f"type=volume,source={volume},target={target}", "--constraint", "node.role==manager"),
            *("--publish", f"mode=host,target={port}", *options, await self.image(role)),
        )

    async def make_original_postgres(self) -> str:
        """With one row in its database; its container."""
        settings = {"USER": self.stack, "DB": self.stack, "PASSWORD": OLD_PASSWORD}
        env = [f"--env=POSTGRES_{name}={value}" for name, value in settings.items()]
        await self.make_original("postgres", f"{self.stack}-postgres-database", POSTGRES_DATA, *env)
        return await self.fill()

    async def fill(self) -> str:
        """Write one row; the container it is in."""
        box = await self.container("postgres")
        await self.until(lambda: self.logs_in(box, OLD_PASSWORD))
        await self.docker("exec", box, *self.psql, "-c", "CREATE TABLE notes AS SELECT 'kept' AS text")
        return box

    @property
    def psql(self) -> tuple[str, ...]:
        return ("psql", "-w", "-At", "-U", self.stack, "-d", self.stack)

    async def rows(self, box: str) -> str:
        return await self.docker("exec", box, *self.psql, "-c", "SELECT text FROM notes")

    async def logs_in(self, box: str, password: str) -> bool:
        """Over the network, where the password counts."""
        argv = (*self.psql, "-h", await self.address(box), "-c", "SELECT 1")
        return await self.docker("exec", "--env", f"PGPASSWORD={password}", box, *argv, check=False) == "1"

    async def address(self, box: str) -> str:
        endpoints = (await self.engine.containers.inspect(box))["NetworkSettings"]["Networks"]
        return str(endpoints[f"{self.stack}-network"]["IPAddress"])

    async def container(self, role: str, *, but: str = "") -> str:
        """That of the service's task, once it runs."""
        found: list[str] = []

        async def runs() -> bool:
            tasks = await self.engine.tasks.of_service(f"{self.stack}-{role}", desired=["running"])
            status = [task["Status"] for task in tasks if task["Status"]["State"] in ("starting", "running")]
            found[:] = [str((each.get("ContainerStatus") or {}).get("ContainerID") or "") for each in status]
            return any(each not in ("", but) for each in found)

        await self.until(runs)
        return next(each for each in found if each not in ("", but))

    async def until(self, condition: Callable[[], Any]) -> None:
        with anyio.fail_after(LIMIT_SECONDS):
            while not await condition():
                await anyio.sleep(0.1)

    async def spec(self, role: str) -> dict[str, Any]:
        return dict((await self.engine.services.inspect(f"{self.stack}-{role}"))["Spec"])

    async def ensure(self, wanted: DataService, adoption: Adoption) -> None:
        async def body() -> ServiceBody:
            return service_body(wanted, api=await self.engine.api_version())

        def report(name: str, plan: Plan) -> None:
            self.plans.append(plan)

        await SwarmDriver(wanted.name, body, self.engine, report=report, adopt=adoption.covers).ensure()

    async def ensure_postgres(self, owner: Owner, password: str, adoption: Adoption) -> None:
        reference = adoption.images.get("postgres") or await self.image("postgres")
        secret = await ensure_secret(self.engine, owner, "postgres", POSTGRES_SECRET_FILE, password.encode())
        wanted = postgres_service(
            owner=owner,
            place=Place(node=self.node, network=self.network),
            image=str((await self.engine.images.inspect(reference))["Id"]),
            major=17,
            password=secret,
            limits=Limits(),
            volume=adoption.volumes.get("postgres"),
        )
        await self.ensure(wanted, adoption)

    async def reset(self, box: str, password: str) -> None:
        await self.until(lambda: self.answers(box))
        await reset_postgres_password(self.engine, box, role=self.stack, database=self.stack, password=Secret(password))

    async def answers(self, box: str) -> bool:
        return "accepting" in await self.docker("exec", box, "pg_isready", "-h", "127.0.0.1", check=False)


@pytest.fixture
def swarm(docker: Share) -> Share:
    ready_swarm(docker)
    docker.network("network", "--driver", "overlay", "--attachable")
    return docker


@pytest.fixture
async def stage(swarm: Share) -> AsyncIterator[Stage]:
    async with engine_of(swarm) as engine:
        network = str((await engine.networks.inspect(f"{swarm.prefix}-network"))["Id"])
        node = str((await engine.info())["Swarm"]["NodeID"])
        yield Stage(swarm, engine, network, node)


@pytest.mark.engine
@pytest.mark.servers
async def test_postgres_of_the_original_becomes_ours_with_its_rows(stage: Stage) -> None:
    before = await stage.make_original_postgres()
    assert (await stage.spec("postgres"))["EndpointSpec"]["Ports"]
    owner = Owner("install-1", stage.stack)
    adoption = plan_adoption(await survey(stage.engine, stage.stack), owner, fresh=True, adopt=False)
    assert adoption.volumes == {"postgres": Volume(f"{stage.stack}-postgres-database", POSTGRES_DATA)}
    assert adoption.set_passwords

    await stage.ensure_postgres(owner, "new-password", adoption)
    after = await stage.container("postgres", but=before)
    await stage.reset(after, "new-password")

    assert await stage.rows(after) == "kept"
    assert await stage.logs_in(after, "new-password")
    assert not await stage.logs_in(after, OLD_PASSWORD)
    spec = await stage.spec("postgres")
    assert spec["Labels"][INSTALL] == "install-1"
    assert "Ports" not in spec["EndpointSpec"]
    assert OLD_PASSWORD not in json.dumps(spec)
    inspected = await stage.engine.containers.inspect(after)
    assert not any(inspected["NetworkSettings"]["Ports"].values())
    assert OLD_PASSWORD not in json.dumps(inspected)

    again = plan_adoption(await survey(stage.engine, stage.stack), owner, fresh=False, adopt=False)
    assert again == Adoption(volumes=adoption.volumes)
    await stage.ensure_postgres(owner, "new-password", again)
    assert isinstance(stage.plans[-1], Keep)
    assert await stage.container("postgres") == after


@pytest.mark.engine
@pytest.mark.servers
async def test_redis_of_the_original_becomes_ours_with_its_keys(stage: Stage) -> None:
    await stage.make_original("redis", f"{stage.stack}-redis", "/data")
    before = await stage.container("redis")

    async def written() -> bool:
        return await stage.docker("exec", before, "redis-cli", "set", "note", "kept", check=False) == "OK"

    await stage.until(written)
    owner = Owner("install-1", stage.stack)
    adoption = plan_adoption(await survey(stage.engine, stage.stack), owner, fresh=True, adopt=False)
    await keep_redis_data(stage.engine, adoption.snapshot)
    config = await ensure_secret(stage.engine, owner, "redis", REDIS_CONFIG_FILE, redis_config("new-password").encode())
    image = str((await stage.engine.images.inspect(adoption.images["redis"]))["Id"])
    place = Place(node=stage.node, network=stage.network)
    await stage.ensure(
        redis_service(
            owner=owner, place=place, image=image, config=config, limits=Limits(), volume=adoption.volumes["redis"]
        ),
        adoption,
    )
    after = await stage.container("redis", but=before)
    ask = ("exec", "--env", "REDISCLI_AUTH=new-password", after, "redis-cli")

    async def answers() -> bool:
        return await stage.docker(*ask, "ping", check=False) == "PONG"

    await stage.until(answers)
    assert await stage.docker(*ask, "get", "note") == "kept"
    assert "NOAUTH" in await stage.docker("exec", after, "redis-cli", "get", "note", check=False)
    assert "Ports" not in (await stage.spec("redis"))["EndpointSpec"]


@pytest.mark.engine
async def test_redis_that_does_not_run_is_not_taken_over(stage: Stage) -> None:
    await stage.make_original("redis", f"{stage.stack}-redis", "/data", "--replicas", "0")
    with pytest.raises(ConfigurationError, match="docker service scale"):
        await keep_redis_data(stage.engine, f"{stage.stack}-redis")


@pytest.mark.engine
@pytest.mark.servers
async def test_lost_state_gets_its_postgres_back_with_its_rows(stage: Stage) -> None:
    lost, new = Owner("install-0", stage.stack), Owner("install-1", stage.stack)
    await stage.ensure_postgres(lost, OLD_PASSWORD, Adoption())
    before = await stage.fill()

    there = await survey(stage.engine, stage.stack)
    assert there.volumes[f"{stage.stack}-postgres"] == dict(lost.labels("postgres"))
    adoption = plan_adoption(there, new, fresh=True, adopt=False)
    assert (adoption.install, adoption.set_passwords) == ("install-0", True)
    assert adoption.volumes == {"postgres": Volume(f"{stage.stack}-postgres", postgres_target(17))}
    await stage.ensure_postgres(Owner(adoption.install, stage.stack), "new-password", adoption)
    after = await stage.container("postgres", but=before)
    await stage.reset(after, "new-password")

    assert await stage.rows(after) == "kept"
    assert await stage.logs_in(after, "new-password")
    assert not await stage.logs_in(after, OLD_PASSWORD)
    with pytest.raises(ConfigurationError, match="install-0"):
        plan_adoption(await survey(stage.engine, stage.stack), new, fresh=False, adopt=False)


@pytest.mark.engine
async def test_service_of_somebody_else_is_refused_and_untouched(stage: Stage) -> None:
    name = f"{stage.stack}-postgres"
    image = await stage.image("base")
    await stage.docker("service", "create", "--detach", "--name", name, image, "sleep", "600")
    before = await stage.engine.services.inspect(name)
    owner = Owner("install-1", stage.stack)
    with pytest.raises(ConfigurationError) as caught:
        plan_adoption(await survey(stage.engine, stage.stack), owner, fresh=True, adopt=False)
    for named in (name, image, before["CreatedAt"], "SUPERVISOR_ADOPT=1"):
        assert named in str(caught.value)
    secret = SecretFile("none", "none", POSTGRES_SECRET_FILE)
    wanted = DataService(
        name=name,
        owner=owner,
        role="postgres",
        image=image,
        secrets=(secret,),
        volume=name,
        target="/data",
        network=stage.network,
        node=stage.node,
        port=5432,
        health=HealthCheck(command="true"),
        stop_signal="SIGINT",
        stop_seconds=1,
    )
    with pytest.raises(ConfigurationError, match="it belongs to nobody"):
        await stage.ensure(wanted, Adoption())
    assert (await stage.engine.services.inspect(name))["Version"] == before["Version"]


@pytest.mark.engine
async def test_certificates_of_the_traefik_that_is_replaced_are_read(stage: Stage, tmp_path: Path) -> None:
    certificates = {"letsencrypt": {"Account": {"Email": "a@example.org"}, "Certificates": []}}
    (tmp_path / "acme.json").write_text(json.dumps(certificates))
    name = f"{stage.stack}-traefik"
    bind = f"{tmp_path}:/etc/dokploy/traefik/dynamic"
    image = await stage.image("traefik")
    await stage.docker("run", "--detach", "--name", name, "--volume", bind, image, "traefik", "--ping")

    owner = Owner("install-1", stage.stack)
    there = await survey(stage.engine, stage.stack)
    adoption = plan_adoption(there, owner, fresh=True, adopt=False)
    assert there.traefik is not None
    assert adoption.replaced == there.traefik.id
    found = await rescue_acme(stage.engine, adoption.replaced)
    assert found is not None
    assert json.loads(found) == certificates
    (tmp_path / "acme.json").write_text("")
    assert await rescue_acme(stage.engine, adoption.replaced) is None
    assert await rescue_acme(stage.engine, f"{stage.stack}-nobody") is None


@pytest.mark.engine
async def test_survey_of_an_empty_engine_finds_the_network_only(stage: Stage) -> None:
    found = await survey(stage.engine, stage.stack)
    assert (found.network, found.node) == (stage.network, stage.node)
    assert (dict(found.services), found.traefik, dict(found.volumes)) == ({}, None, {})
    assert plan_adoption(found, Owner("install-1", stage.stack), fresh=True, adopt=False) == Adoption()
