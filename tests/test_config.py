"""The config of a run: its defaults, what is read from files and overrides, and one-line errors for the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdnn_dist.training.config import Config, ConfigError, known_keys
from hdnn_dist.training.config_files import dump_config, load_config

EVERYTHING = """
seed = 7
dtype = "float64"
placement = [0, 0, 1, 1]
graph = "ring:4"

[network]
architecture = "H1-J1"
features = [2, 4, 2, 2]
pattern = [[0, 0], [1, 0], [2, 2], [3, 3]]

[readout]
at = [0, 2]
root = 2

[data]
columns = { 0 = [0], 3 = [-1, 1] }
patch = [2, 4]
noise = 1

[optimizer]
name = "sgd"
clip = 1.0
"""


def config_file(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_it_is_the_default_run() -> None:
    """The run of ``make demo``: H2 on an 8-agent ring, double circles, at most 50 epochs."""
    config = load_config(None)
    assert config == Config()
    assert (config.graph, config.network.architecture, config.data.name) == ("ring:8", "H2", "double_circles")
    assert config.epochs <= 50


def test_a_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    config = load_config(config_file(tmp_path, EVERYTHING))
    assert config.network.features == [2, 4, 2, 2]
    assert config.network.pattern == [(0, 0), (1, 0), (2, 2), (3, 3)]
    assert config.data.columns == {0: [0], 3: [-1, 1]}
    assert config.data.patch == (2, 4)
    assert config.data.noise == 1.0
    assert config.readout.at == [0, 2]
    assert config.optimizer.momentum == Config().optimizer.momentum


@pytest.mark.parametrize("text", ["", EVERYTHING], ids=["default", "everything"])
def test_a_dumped_config_repeats_its_run(text: str, tmp_path: Path) -> None:
    """The config.toml of a run folder can be trained again."""
    config = load_config(config_file(tmp_path, text))
    assert load_config(config_file(tmp_path, dump_config(config))) == config


@given(
    values=st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**63 - 1),
            "optimizer": st.fixed_dictionaries({"learning_rate": st.floats(1e-300, 1e30)}),
            "data": st.fixed_dictionaries({"root": st.text(st.characters(exclude_categories=["Cs"]))}),
        }
    )
)
def test_any_value_survives_the_file(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """A number must not lose digits on its way through TOML, nor text its quotes."""
    config = Config.model_validate(values)
    assert load_config(config_file(tmp_path_factory.mktemp("c"), dump_config(config))) == config


@pytest.mark.parametrize(
    ("override", "section", "name", "expected"),
    [
        ("epochs=3", None, "epochs", 3),
        ("graph=grid:2x4", None, "graph", "grid:2x4"),
        ("network.step = 0.5", "network", "step", 0.5),
        ("network.step=1", "network", "step", 1.0),
        ('data.root="2024"', "data", "root", "2024"),
        ("data.root=a=b", "data", "root", "a=b"),
        ("readout.at=[3]", "readout", "at", [3]),
        ("data.columns={0=[0], 1=[1]}", "data", "columns", {0: [0], 1: [1]}),
        ("data.columns.5=[0, 1]", "data", "columns", {5: [0, 1]}),
    ],
)
def test_overrides(override: str, section: str | None, name: str, expected: Any) -> None:
    config = load_config(None, [override])
    assert getattr(getattr(config, section) if section else config, name) == expected


def test_overrides_win_over_the_file_and_the_last_over_the_first(tmp_path: Path) -> None:
    path = config_file(tmp_path, EVERYTHING)
    config = load_config(path, ["seed=1", "seed=2", "network.layers=5"])
    assert (config.seed, config.network.layers) == (2, 5)
    assert config.network.architecture == "H1-J1"


def test_every_key_that_is_known_can_be_set() -> None:
    """Fails if ``known_keys`` offers a key that does not exist."""
    for key in known_keys():
        with pytest.raises(ConfigError, match=rf"^--set: {key} is \{{'x': 1.5}}: it should be "):
            load_config(None, [f"{key}.x=1.5"])


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "marked.toml").write_text("epochs = 3\n", encoding="utf-8-sig")
    assert load_config(tmp_path / "marked.toml").epochs == 3


SCALARS = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.text(max_size=20), st.sampled_from([2**31, 2**63, 1e308])
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@given(st.sampled_from(known_keys()) | st.text(max_size=20), VALUES)
@settings(max_examples=400, deadline=None)
def test_any_value_is_taken_or_refused_in_one_line(key: str, value: object) -> None:
    """Numbers of all sizes, text, lists, and keys that are none."""
    said = "--set"
    try:
        load_config(None, [f"{key}={json.dumps(value)}"])
    except ConfigError as error:
        said = str(error)
    assert said.startswith("--set")
    assert len(said.splitlines()) == 1


WRONG: dict[str, tuple[str, str]] = {
    "a slip": ("epoch=3", "unknown key 'epoch': did you mean 'epochs'?"),
    "a slip in a section": ("network.layer=3", "unknown key 'network.layer': did you mean 'network.layers'?"),
    "a slip in the section's name": (
        "netwrok.layers=3",
        "unknown key 'netwrok.layers': did you mean 'network.layers'?",
    ),
    "no section": ("layers=3", "unknown key 'layers': did you mean 'network.layers'?"),
    "no section, and short": ("at=all", "unknown key 'at': did you mean 'readout.at'?"),
    "like no key": ("zzzqqq=1", "unknown key 'zzzqqq': there are seed, dtype, epochs, "),
    "like no key of a section": ("data.zzzqqq=1", "unknown key 'data.zzzqqq': there are data.source, data.name, "),
    "astronomically many layers": ("network.layers=99999999999", "should be less than or equal to 2147483647"),
    "astronomically many epochs": ("epochs=99999999999999999999", "should be less than or equal to 2147483647"),
    "a batch of any size": ("batch_size=99999999999999999999", "should be less than or equal to 2147483647"),
    "more threads than any machine": ("threads=1000000000", "threads is 1000000000: it should be less than or equal"),
    "momentum that grows": ("optimizer.momentum=2", "optimizer.momentum is 2: it should be less than 1"),
    "a decay that grows": (
        "optimizer.decay=1e9",
        "optimizer.decay is 1000000000.0: it should be less than or equal to 1",
    ),
    "text for a number": ("network.layers=many", "network.layers is 'many': it should be a whole number"),
    "a fraction": ("epochs=1.5", "epochs is 1.5: it should be a whole number"),
    "a truth value": ("seed=true", "seed is True: it should be a whole number"),
    "a number for text": ("data.root=2024", "data.root is 2024: it should be a string"),
    "too small": ("network.layers=0", "network.layers is 0: it should be greater than or equal to 1"),
    "no step": ("network.step=0", "network.step is 0: it should be greater than 0"),
    "not finite": ("optimizer.learning_rate=inf", "optimizer.learning_rate is inf: it should be a finite number"),
    "not a number": ("data.noise=nan", "data.noise is nan: it should be a finite number"),
    "no such choice": ("dtype=float16", "dtype is 'float16': it should be 'float32' or 'float64'"),
    "a value for a section": ("readout=3", "readout is 3: it should be a section with the keys at, root, loss"),
    "features": ("network.features=2.5", "is 2.5: it should be a whole number, or a list of one for each agent"),
    "a feature": ('network.features=[2, "a"]', "is [2, 'a']: it should be a whole number, or a list of one for each"),
    "readers": (
        "readout.at=corner",
        "is 'corner': it should be 'all', 'centre', 'each' or a list of agents, such as [0]",
    ),
    "placement": ("placement=2", "is 2: it should be 'auto', 'metis', 'contiguous' or a list with the rank of each"),
    "graph": ("graph=8", "graph is 8: it should be a topology, such as 'ring:8', or a graph file"),
    "pattern": (
        "network.pattern=[[0, 1, 2]]",
        "is [[0, 1, 2]]: it should be a list of pairs of agents, such as [[0, 0]",
    ),
    "columns": (
        "data.columns=[0]",
        "is [0]: it should be a table from agents to lists of columns, such as {0 = [0], 4",
    ),
    "patch": ("data.patch=[2]", "data.patch is [2]: it should be a height and a width in pixels, such as [2, 2]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_named_with_what_they_should_be(name: str) -> None:
    override, words = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    message = str(caught.value)
    assert message.startswith("--set: ")
    assert words in message
    assert "\n" not in message
    assert not any(jargon in message for jargon in ("pydantic", "literal", "tuple", "dictionary", "Config", "Input"))


@pytest.mark.parametrize("override", ["epochs", "=3", "network.=3", ".epochs=3", "network..step=3"])
def test_an_override_is_key_and_value(override: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set .*such as"):
        load_config(None, [override])


def test_a_value_cannot_be_used_as_a_section(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'seed' is a value, not a section"):
        load_config(config_file(tmp_path, EVERYTHING), ["seed.x=3"])


def test_errors_begin_with_where_the_value_may_come_from(tmp_path: Path) -> None:
    path = config_file(tmp_path, "epochs = -1\n")
    with pytest.raises(ConfigError, match=r"config\.toml: epochs is -1"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"config\.toml or --set: epochs is -1"):
        load_config(path, ["seed=1"])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml does not exist"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match=r"is not TOML: .*line 1"):
        load_config(config_file(tmp_path, "epochs = \n"))
