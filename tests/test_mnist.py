"""MNIST: each rank's columns of the original files, and one line for files that are not those."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from typer.testing import CliRunner, Result

from hdnn_dist.cli import app
from hdnn_dist.data import SOURCES, Columns, Dataset, load
from hdnn_dist.data.mnist import TEST, TRAIN, Mnist, Part
from hdnn_dist.data.mnist_download import download
from hdnn_dist.exchange.transports.local import LocalWorld
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.loop import Trainer

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data" / "mnist"
CONFIGS = ROOT / "launch" / "configs"
SAMPLES = {"train": 2300, "test": 400}  # more than one chunk, and one that is not full
RNG = np.random.default_rng(5)
IMAGES = {part: RNG.integers(0, 256, (count, 784), dtype=np.uint8) for part, count in SAMPLES.items()}
LABELS = {part: RNG.integers(0, 10, count, dtype=np.uint8) for part, count in SAMPLES.items()}
CONTENT = {
    TRAIN.images: struct.pack(">4i", 2051, 2300, 28, 28) + IMAGES["train"].tobytes(),
    TRAIN.labels: struct.pack(">2i", 2049, 2300) + LABELS["train"].tobytes(),
    TEST.images: struct.pack(">4i", 2051, 400, 28, 28) + IMAGES["test"].tobytes(),
    TEST.labels: struct.pack(">2i", 2049, 400) + LABELS["test"].tobytes(),
}


def scaled(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return (pixels / 255.0 - 0.1307) / 0.3081


def small(part: Part, samples: int) -> Part:
    """A part of the tiny database in place of the published one."""
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in CONTENT.items()}
    return replace(part, samples=samples, images_md5=md5[part.images], labels_md5=md5[part.labels])


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The four files are the tiny ones below, except in tests of the real ones."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setitem(SOURCES, "mnist", Mnist(small(TRAIN, 2300), small(TEST, 400)))


def write(folder: Path, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in CONTENT.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1))
        else:
            (folder / name).write_bytes(content)
    return folder


def whole(root: Path | None, samples: int | None = None, seed: int = 0, labels: bool = True) -> Dataset:
    return load("mnist", seed=seed, index=np.arange(784), samples=samples, root=root, labels=labels)


def test_the_description_is_that_of_the_published_database() -> None:
    about = Mnist().describe(None)
    assert (about.columns, about.classes, about.samples, about.image) == (784, 10, 70_000, (28, 28))


@pytest.mark.parametrize("layout", [".", "MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_all_layouts_give_the_published_samples_in_their_order(tmp_path: Path, layout: str, packed: bool) -> None:
    write(tmp_path / layout, packed)
    data = whole(tmp_path)
    for part, name in ((data.train, "train"), (data.test, "test")):
        np.testing.assert_allclose(part.inputs, scaled(IMAGES[name]), atol=1e-6)
        np.testing.assert_array_equal(part.labels, LABELS[name])
        assert part.inputs.dtype == np.float32
        assert part.labels is not None
        assert part.labels.dtype == np.int64


def test_ranks_hold_the_patches_of_their_agents_only(tmp_path: Path) -> None:
    """The ranks' columns together are the data of one rank alone, each patch at the front of its agent's block."""
    root = write(tmp_path)
    columns, full = Columns.patches((28, 28), (4, 4), [32] * 49), whole(root)
    for local in ([0, 1, 2], [48], list(range(3, 48))):
        part = load("mnist", seed=0, index=columns.index(local), root=root)
        assert part.train.inputs.shape == (2300, 32 * len(local))
        for place, agent in enumerate(local):
            row, column = 4 * (agent // 7), 4 * (agent % 7)
            patch = full.test.inputs.reshape(-1, 28, 28)[:, row : row + 4, column : column + 4].reshape(-1, 16)
            np.testing.assert_array_equal(part.test.inputs[:, 32 * place : 32 * place + 16], patch)
            assert not part.test.inputs[:, 32 * place + 16 : 32 * place + 32].any()


def test_a_rank_without_the_root_does_not_open_the_labels(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / TRAIN.labels).write_bytes(b"")
    data = whole(root, labels=False)
    assert data.train.labels is None
    assert len(data.test) == 400


def test_fewer_samples_are_the_same_draw_from_both_parts_on_every_rank(tmp_path: Path) -> None:
    root = write(tmp_path)
    few, other = whole(root, samples=270, seed=1), whole(root, samples=270, seed=2)
    assert (len(few.train), len(few.test)) == (230, 40)
    known = {image.tobytes(): label for image, label in zip(whole(root).train.inputs, LABELS["train"], strict=True)}
    assert few.train.labels is not None
    assert [known[image.tobytes()] for image in few.train.inputs] == few.train.labels.tolist()
    assert not np.array_equal(few.train.inputs, other.train.inputs)
    one = load("mnist", seed=1, index=np.array([300]), samples=270, root=root, labels=False)
    np.testing.assert_array_equal(one.train.inputs[:, 0], few.train.inputs[:, 300])


def rewritten(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / name).write_bytes(change((root / name).read_bytes()))

    return damage


def renamed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """The file replaced by its packed form, changed."""

    def damage(root: Path) -> None:
        (root / f"{name}.gz").write_bytes(change(gzip.compress((root / name).read_bytes(), compresslevel=1)))
        (root / name).unlink()

    return damage


def without(*names: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for name in names:
            (root / name).unlink()

    return damage


def folder(root: Path) -> None:
    (root / TEST.labels).unlink()
    (root / TEST.labels).mkdir()


WRONG = {
    "one file missing": (without(TEST.labels), f"^the folder .* of data.root .* lacks {TEST.labels}, as they are or"),
    "two files missing": (without(TRAIN.images, TEST.images), f" lacks {TRAIN.images}, {TEST.images}, as they are or"),
    "all missing": (without(*CONTENT), "MNIST database of handwritten digits; torchvision.datasets.MNIST downloads"),
    "a folder in its place": (folder, f" lacks {TEST.labels}, as they are or"),
    "images cut off": (
        rewritten(TRAIN.images, lambda b: b[:-1]),
        f"{TRAIN.images} is cut off: unpacked, it should have 1803216 bytes.*torchvision",
    ),
    "header cut off": (rewritten(TEST.images, lambda b: b[:7]), f"{TEST.images} is cut off"),
    "empty": (rewritten(TRAIN.labels, lambda b: b""), f"{TRAIN.labels} is cut off"),
    "one pixel changed": (
        rewritten(TEST.images, lambda b: b[:-1] + bytes([b[-1] ^ 1])),
        f"{TEST.images} is not the original file: unpacked, its MD5 is [0-9a-f]+ and should be",
    ),
    "one label changed": (rewritten(TRAIN.labels, lambda b: b[:-1] + b"\xff"), f"{TRAIN.labels} is not the original"),
    "header changed": (rewritten(TRAIN.images, lambda b: b"\1" + b[1:]), f"{TRAIN.images} is not the original"),
    "a byte too many": (rewritten(TEST.labels, lambda b: b + b"\0"), f"{TEST.labels} is not the original"),
    "packed, cut off": (renamed(TRAIN.images, lambda b: b[:-20_000]), f"{TRAIN.images}.gz is cut off"),
    "packed, only the end cut off": (renamed(TEST.labels, lambda b: b[:-4]), f"{TEST.labels}.gz is cut off"),
    "packed, damaged": (renamed(TEST.labels, lambda b: b[:20] + b"\xff" * 40 + b[60:]), f"{TEST.labels}.gz"),
    "packed by name only": (renamed(TEST.labels, lambda b: CONTENT[TEST.labels]), "cannot be unpacked"),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_that_are_not_the_original_get_one_line(tmp_path: Path, case: str) -> None:
    damage, message = WRONG[case]
    damage(write(tmp_path))
    with pytest.raises(ValueError, match=message) as caught:
        whole(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    write(tmp_path)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ValueError, match=f"{TRAIN.images} cannot be read: Permission denied"):
        whole(tmp_path)


@pytest.mark.parametrize("samples", [1, 6, 2701])
def test_a_number_of_samples_it_has_not_is_refused(tmp_path: Path, samples: int) -> None:
    with pytest.raises(ValueError, match=f"mnist has 2700 samples; take 7 to 2700, not {samples}"):
        whole(tmp_path, samples=samples)


def test_without_a_folder_the_error_says_to_set_it() -> None:
    with pytest.raises(ValueError, match=r"set data\.root to the folder of .*with \.gz: .*torchvision"):
        whole(None)


def test_the_missing_files_can_be_asked_for(tmp_path: Path) -> None:
    """Each is named once."""
    with pytest.raises(ValueError, match="'hdnn-dist reproduce' with --download") as caught:
        whole(tmp_path)
    assert all(str(caught.value).count(name) == 1 for name in CONTENT)


class TestDownload:
    """From a server on this machine: all four files or none, and one line for what is wrong."""

    @pytest.fixture
    def served(self) -> dict[str, bytes]:
        """What the server has, by name."""
        return {f"{name}.gz": gzip.compress(content, compresslevel=1) for name, content in CONTENT.items()}

    @pytest.fixture
    def mirror(self, served: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        class Files(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = served.get(self.path.removeprefix("/files/"))
                self.send_response(404 if content is None else 200)
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None:
                pass

        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield f"http://127.0.0.1:{server.server_address[1]}/files/"
            server.shutdown()
            thread.join()

    def refuse(self, root: Path, mirror: str, words: str, kind: type[Exception] = ValueError) -> None:
        with pytest.raises(kind, match=words) as caught:
            self.fetch(root, mirror)
        assert "\n" not in str(caught.value)

    def fetch(self, root: Path, mirror: str) -> None:
        download(root, Mnist(small(TRAIN, 2300), small(TEST, 400)), mirror)

    def test_what_was_fetched_can_be_read(self, tmp_path: Path, mirror: str, served: dict[str, bytes]) -> None:
        """Into a folder that is new, and again over what is there."""
        root = tmp_path / "new" / "mnist"
        for _ in range(2):
            self.fetch(root, mirror)
            assert {path.name: path.read_bytes() for path in root.iterdir()} == served
            np.testing.assert_array_equal(whole(root).test.labels, LABELS["test"])
            (root / f"{TEST.labels}.gz").write_bytes(b"damaged")

    @pytest.mark.parametrize(
        ("name", "change", "words"),
        [
            (TEST.labels, lambda b: gzip.compress(CONTENT[TEST.labels] + b"\0"), "is not the original file: unpacked"),
            (TRAIN.images, lambda b: b[:-20_000], "was cut off after"),
            (TEST.labels, lambda b: b[:-4], "was cut off after"),
            (TEST.images, lambda b: b"<html>moved</html>", "cannot be unpacked"),
            (TEST.images, lambda b: b[:20] + b"\xff" * 40 + b[60:], "cannot be unpacked"),
        ],
    )
    @pytest.mark.parametrize("folder", ["there", "new/mnist"])
    def test_a_wrong_file_leaves_nothing(
        self,
        tmp_path: Path,
        mirror: str,
        served: dict[str, bytes],
        folder: str,
        name: str,
        change: Callable[[bytes], bytes],
        words: str,
    ) -> None:
        (tmp_path / "there").mkdir()
        served[f"{name}.gz"] = change(served[f"{name}.gz"])
        self.refuse(tmp_path / folder, mirror, f"{name}.gz {words}")
        assert sorted(tmp_path.rglob("*")) == [tmp_path / "there"]

    def test_a_file_that_the_mirror_has_not(self, tmp_path: Path, mirror: str, served: dict[str, bytes]) -> None:
        del served[f"{TEST.images}.gz"]
        self.refuse(tmp_path, mirror, f"{TEST.images}.gz cannot be downloaded .*Not Found.*put the four files", OSError)
        assert list(tmp_path.iterdir()) == []

    def test_no_network(self, tmp_path: Path, mirror: str) -> None:
        """Nobody listens on the port that was just given back."""
        with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
            closed = f"http://127.0.0.1:{server.server_address[1]}/"
        self.refuse(tmp_path, closed, "cannot be downloaded .*refused.*is there a network", OSError)
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_is_full(self, tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the third file: the first two go away with it."""
        write_bytes, written = Path.write_bytes, []

        def fail(path: Path, content: bytes) -> int:
            written.append(path)
            if len(written) == 3:
                raise OSError(28, "No space left on device")
            return write_bytes(path, content)

        monkeypatch.setattr(Path, "write_bytes", fail)
        self.refuse(tmp_path / "new" / "mnist", mirror, "No space left", OSError)
        assert len(written) == 3
        assert list(tmp_path.iterdir()) == []

    def test_a_file_in_place_of_the_folder(self, tmp_path: Path, mirror: str) -> None:
        (tmp_path / "file").write_text("mine")
        self.refuse(tmp_path / "file", mirror, "file is a file: give a folder for the files of MNIST")
        assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("damage", [without(TEST.labels), rewritten(TEST.images, lambda b: b[:-1])])
def test_nothing_is_trained_or_written_for_wrong_files(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    root = write(tmp_path / "files")
    damage(root)
    result = train("mnist_patches_centre", root, tmp_path / "run", "threads=1")
    assert result.exit_code == 2
    assert result.stderr.startswith("hdnn-dist: error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "readers", "sample"),
    [("mnist_patches_centre", [24], (49 * 32,)), ("mnist_channels", [0, 1, 2, 3], (1, 28, 28))],
)
def test_the_shipped_configs_fit_the_data(
    tmp_path: Path, config: str, readers: list[int], sample: tuple[int, ...]
) -> None:
    """Columns, patches, images, graph and readout, up to a loss."""
    small = ["data.samples=70", "network.layers=1", f"data.root={write(tmp_path)}"]
    settings = load_config(CONFIGS / f"{config}.toml", small)
    job = build(settings, CommunicationGraph.parse(settings.graph), LocalWorld(torch.device("cpu")))
    assert job.head.at.tolist() == readers
    assert job.train.inputs.shape == (60, *sample)
    assert np.isfinite(Trainer(job).evaluate(job.test).loss)


ACCURACY = {
    "mnist_patches": 0.988,
    "mnist_patches_centre": 0.985,
    "mnist_patches_corner": 0.975,
    "mnist_channels": 0.97,
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not REAL.is_dir(), reason="needs the files of MNIST in ../shared/data/mnist")
@pytest.mark.parametrize("config", ACCURACY)
def test_the_shipped_configs_reach_their_accuracy(tmp_path: Path, config: str) -> None:
    result = train(config, REAL, tmp_path / "run", "threads=1")
    assert (result.exit_code, result.stderr) == (0, "")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["off_graph_messages"] == 0
    assert summary["test_accuracy"] >= ACCURACY[config]


def train(config: str, root: Path, run: Path, *pairs: str) -> Result:
    overrides = [argument for pair in (f"data.root={root}", *pairs) for argument in ("--set", pair)]
    command = ["train", str(CONFIGS / f"{config}.toml"), "--run-dir", str(run), *overrides]
    return CliRunner().invoke(app, command, catch_exceptions=False)
