"""Decides what the app runs from: the release that the state says, or the image's own where that cannot be. Wiring."""

from __future__ import annotations

import time

import anyio

from supervisor.core.events import Notice, Publish, Warned
from supervisor.core.settings import Settings
from supervisor.planning.home import AppHome
from supervisor.releases.base import Base
from supervisor.releases.image import ImageFile, OnImageChange, decide, read_image
from supervisor.releases.model import BAKED, ReleaseError, of_disk
from supervisor.releases.updates import Updates


class Homes:
    """`first` at the boot, before anything is started; `active` whenever the state was changed."""

    def __init__(self, settings: Settings, updates: Updates, base: Base, publish: Publish) -> None:
        self._settings = settings
        self._updates = updates
        self._base = base
        self._publish = publish
        self._image_file = ImageFile(updates.layout.image)

    async def first(self) -> AppHome:
        """A newer image may have its own say."""
        if self._updates.state.active != BAKED:
            await self._look_at_image()
        return await self.active()

    async def active(self) -> AppHome:
        """What the state says is active. What cannot be used is not: of a trial the good one is, else the image's."""
        while True:
            release = self._updates.state.active
            home, why = await self._of(release)
            if not why:
                return home
            self._publish(Warned(message=f"release {release} is not used: {why}"))
            try:
                if not await self._updates.give_up_trial(why):
                    await self._updates.use_image(why)
            except ReleaseError as error:
                self._publish(Warned(message=f"the image's own app is started, and that is not written down: {error}"))
                return AppHome()

    async def _of(self, release: str) -> tuple[AppHome, str]:
        """A release's home, and why it cannot be used."""
        if release == BAKED:
            return AppHome(), ""
        tree = self._updates.layout.tree(release)
        try:
            manifest = await self._updates.kept.manifest(release)
            return AppHome(tree, manifest), await anyio.to_thread.run_sync(self._base.why_unusable, tree)
        except ReleaseError as error:
            return AppHome(), str(error)
        except OSError as error:
            return AppHome(), of_disk(error)

    async def _look_at_image(self) -> None:
        """Where the image was changed since the last start: which app is started now."""
        state = self._updates.state
        before = await anyio.to_thread.run_sync(self._image_file.read)
        until = before.until_ns if before is not None else time.time_ns()
        image = await anyio.to_thread.run_sync(read_image, self._settings.app_dir, until)
        if image == before:
            return
        known = state.releases.get(state.active)
        sequence = known.sequence if known is not None else 0
        verdict = decide(OnImageChange(self._settings.on_image_change), image, before, state.active, sequence)
        if verdict.told:
            self._publish(Notice(message=verdict.told))
        if verdict.use_image:
            await self._updates.use_image(verdict.told)
        await self.note_image()

    async def note_image(self) -> None:
        """What cannot be written down is told again at the next start."""
        try:
            image = await anyio.to_thread.run_sync(read_image, self._settings.app_dir, time.time_ns())
            await anyio.to_thread.run_sync(self._image_file.write, image)
        except OSError as error:
            self._publish(Warned(message=f"which image this is, is not remembered: {of_disk(error)}"))
