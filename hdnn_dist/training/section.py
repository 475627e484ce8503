"""What the sections of a config are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from hdnn_dist.support.arguments import LARGEST

Positive = Annotated[float, Field(gt=0, le=LARGEST)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST)]
MOST = 2**31 - 1
Count = Annotated[int, Field(ge=1, le=MOST)]

Agent = int | str  # its number, or what the graph's file calls it


class Section(BaseModel):
    """Keys that are not declared are errors, and values are not converted.

    A key whose value has parts, or can be of several types, has a ``description``: what an error says it should be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
