"""What an app needs in its environment, as its table in supervisor.toml declares it."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from supervisor.core.settings.types import TABLE, VariableName, words


def _plain_text(value: object) -> object:
    """Numbers and truth values as a variable has them: `RETRIES = 3` is meant as text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


VariableNames = Annotated[tuple[VariableName, ...], BeforeValidator(words)]
PlainText = Annotated[str, BeforeValidator(_plain_text)]


class AppVariable(BaseModel):
    """One variable of an app, `[apps.NAME.env.vars.VARIABLE]`."""

    model_config = TABLE

    generate: bool = Field(False, description="made on first boot, and kept")
    min_length: Annotated[int, Field(ge=0, le=65536)] = Field(0, description="least number of characters")
    give: Literal["env", "file"] = Field(
        "env", description="how the app gets it; `file`: VARIABLE_FILE with the path of a file"
    )
    kind: Literal["text", "url", "port", "int", "bool", "email"] = Field("text", description="what it must be")
    pattern: Annotated[str, AfterValidator(_expression)] | None = Field(
        None, description="regular expression that must be found in it"
    )

    @model_validator(mode="after")
    def _makes_text(self) -> Self:
        if self.generate and self.kind != "text":
            raise ValueError(f"generate = true makes random text, which is no {self.kind}; leave one of the two out")
        return self


class AppEnv(BaseModel):
    """What an app needs in its environment, `[apps.NAME.env]`."""

    model_config = TABLE

    required: VariableNames = Field((), description="variables it cannot do without")
    optional: dict[VariableName, PlainText] = Field(
        default_factory=dict, description="variables with their defaults", repr=False
    )
    vars: dict[VariableName, AppVariable] = Field(
        default_factory=dict, description="more of single variables; without a default in `optional` they are required"
    )

    @property
    def needed(self) -> tuple[str, ...]:
        """All that must have a value in the end: the required ones, and those of `vars` without a default."""
        return tuple(dict.fromkeys([*self.required, *(name for name in self.vars if name not in self.optional)]))

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if both := sorted(set(self.required) & set(self.optional)):
            raise ValueError(f"{', '.join(both)} cannot be both required and optional; leave it out of one of them")
        return self
