"""What the sections of the settings are made of: a model whose errors are sentences, sizes, texts of a pattern."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from .settings_sources import Sources, explain

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([bkmgt])?(?:i?b)?", re.ASCII | re.IGNORECASE)
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(value: object) -> int:
    """Bytes, from a number or from text as Docker takes it: ``"512m"``, ``"1.5g"``; units are powers of 1024.

    Raises ValueError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError('should be a size: a number of bytes, or text such as "512m" or "2g"')
    return int(float(found[1]) * _UNITS[(found[2] or "b").lower()])


def size(minimum: str, maximum: str = "1024t") -> tuple[BeforeValidator, AfterValidator]:
    least, most = parse_size(minimum), parse_size(maximum)

    def within(value: int) -> int:
        if value < least:
            raise ValueError(f"should be at least {minimum}")
        if value > most:
            raise ValueError(f"should be at most {maximum}")
        return value

    return BeforeValidator(parse_size), AfterValidator(within)


def text(pattern: str, what: str) -> AfterValidator:
    def matching(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"should be {what}")
        return value

    return AfterValidator(matching)


class Section(BaseModel):
    """A part of the settings: frozen, with unknown names refused, and failures that are SettingsErrors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    section: ClassVar[tuple[str, ...]] = ()

    def __init__(self, /, **values: Any) -> None:
        try:
            self.__pydantic_validator__.validate_python(values, self_instance=self)
        except ValidationError as error:
            raise explain(error, type(self), type(self).section, Sources()) from None

    # As pydantic's RootModel does it: a section in a section is validated with it, in one go, so that an
    # error knows the whole path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: object, info: ValidationInfo) -> object:
        """Pydantic would take true for 1, and a limit of ``yes`` seconds for a second."""
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and field.annotation is not bool:
            raise ValueError("should not be true or false")
        return value
