"""The constructor arguments of networks, checked: which there are, and with which values one can be built."""

import inspect
import json
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

Stages = Annotated[int, Field(ge=1, le=64)]
Share = Annotated[float, Field(ge=0, le=1)]
_BY_TYPE: dict[Any, Any] = {  # types of constructor arguments, and what their values may be
    int: Annotated[int, Field(ge=1, le=2**16)],
    float: Share,
    float | None: Share | None,
}


class Checked(BaseModel):
    """Values as JSON has them: no unknown entries, no text or bool for a number, no NaN."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def check_arguments(build: Any, arguments: dict[str, Any]) -> None:
    """Raises pydantic's `ValidationError`, or `TypeError` for what JSON does not hold, for a wrong argument."""
    _arguments(build).model_validate_json(json.dumps(arguments, default=list))


def known_arguments(build: Any) -> Iterable[str]:
    """The names of the constructor arguments of a network."""
    return _arguments(build).model_fields


@cache
def _arguments(build: Any) -> type[BaseModel]:
    """The constructor arguments of a network, none of them required; where it passes others on, those of its base."""
    fields: dict[str, Any] = {}
    for kind in inspect.getmro(build):
        parameters = inspect.signature(kind, eval_str=True).parameters.values()
        named = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
        for name, hint in ((parameter.name, parameter.annotation) for parameter in named):
            fields.setdefault(name, (Stages if name.endswith("stages") else _BY_TYPE.get(hint, hint), None))
        if len(named) == len(parameters):
            break
    return create_model("Arguments", __base__=Checked, **fields)
