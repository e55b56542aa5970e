"""Settings of releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from supervisor.core.settings.types import FIELDS, Seconds


class ReleaseLevel(BaseModel):
    """The part of the settings about releases."""

    model_config = FIELDS

    release_keys: Path | None = Field(
        None, description="folder of public keys (*.pub, minisign) that may sign releases; default in the state folder"
    )
    release_threshold: Annotated[int, Field(ge=1, le=16)] = Field(1, description="how many of these keys must sign")
    release_unsigned: Literal["refuse", "allow"] = Field("refuse", description="what is done with unsigned releases")
    release_bake_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        30, description="how long the old code is kept warm after a switch to a release"
    )
    release_probation_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        600, description="how long a release must hold after that to be good"
    )
    release_snapshot_seconds: Seconds = Field(
        1800, description="longest time for saving the database before a release that asks for it"
    )
    on_image_change: Literal["newest", "volume", "image"] = Field(
        "newest",
        description="which app is started after the image was changed: the newer one, the release's, the image's",
    )
    release_mount: bool = Field(
        False, description="show a release at the app's own folder, to the app only; takes CAP_SYS_ADMIN"
    )
    release_keep: Annotated[int, Field(ge=1, le=1000)] = Field(5, description="how many good releases are kept")
