"""The keys of class transfer, ``data.transfer``; what they mean stands with ``hdnn_dist.data.ClassTransfer``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hdnn_dist.data.class_transfer import CLASSES
from hdnn_dist.training.section import MOST, Agent, Count, Section


class TransferConfig(Section):
    """The agent that reads the class is that of ``readout.at``, the width of the noise ``data.noise``."""

    classes: Annotated[int, Field(ge=2, le=MOST)] = CLASSES
    distance: Count | None = None
    shown_at: Annotated[Agent | None, Field(description="an agent, such as 50")] = None
