"""The keys of tables of one's own, ``data.table``; what they mean stands with ``hdnn_dist.data.Table``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hdnn_dist.data.tables.spec import MEMORY
from hdnn_dist.training.section import Agent, NotNegative, Section

Share = Annotated[float, Field(ge=0, lt=1)]
Names = Annotated[
    list[str] | dict[Agent, list[str]] | None,
    Field(description='a list of columns, such as ["{agent}_*"], or a table from agents to such lists'),
]
Ids = Annotated[
    str | list[int | str] | None, Field(description="a file with an id a line, or a list of ids, such as [17, 23]")
]
Limit = Annotated[float | str | None, Field(description="a number, or a date such as '2024-01-31'")]


class SplitConfig(Section):
    """The keys are those of ``hdnn_dist.data.Splits``."""

    validation: Share = 0.0
    test: Share | None = None
    train_ids: Ids = None
    validation_ids: Ids = None
    test_ids: Ids = None
    time: str | None = None
    validation_from: Limit = None
    test_from: Limit = None


class TableConfig(Section):
    """The keys are those of ``hdnn_dist.data.Table``; files lie in ``data.root``, if it is given."""

    files: Annotated[
        str | dict[Agent, str] | None,
        Field(description="a pattern, such as 'sensors/{agent}.csv', or a table from agents to files"),
    ] = None
    columns: Names = None
    id: str = "id"
    labels: str | None = None
    label: Annotated[str | list[str], Field(description="a column, or a list of columns")] = "label"
    targets: Names = None
    task: Literal["classification", "regression"] = "classification"
    classes: Annotated[
        list[int | str] | None, Field(description="a list of the values of label, such as ['no', 'yes']")
    ] = None
    missing_ids: Literal["refuse", "drop"] = "refuse"
    missing_values: Literal["refuse", "mean"] = "refuse"
    standardise: bool = True
    standardise_targets: bool = False
    delimiter: str = ","
    memory: NotNegative = MEMORY
    split: SplitConfig = SplitConfig()
