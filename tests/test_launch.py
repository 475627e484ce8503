"""The main job as its users start it: the same config in one process, under torchrun and under mpiexec."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
import typer
from jobs import BIN, mpiexec, run

from hdnn_dist.cli import app
from hdnn_dist.training.config_files import load_config

ROOT = Path(__file__).parents[1]
SMALL = ["dtype=float64", "epochs=2", "network.layers=4", "data.samples=400"]
FULL = ["dtype=float64", "epochs=2"]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
JOBS = {"local": 1, "torchrun 2": 2, "mpiexec 2": 2, "torchrun 8": 8}
FEW = [job for job in JOBS if JOBS[job] <= 2]
PAIRS = {1: {}, 2: {"shared memory": "0-1"}, 8: {"shared memory": "0-1 0-7 1-2 2-3 3-4 4-5 5-6 6-7"}}


def train(job: str, folder: Path, settings: list[str]) -> dict:
    """summary.json of one run."""
    arguments = [*(word for key in settings for word in ("--set", key)), "--run-dir", str(folder)]
    if job == "local":
        subprocess.run([sys.executable, "-m", "hdnn_dist", "train", *arguments], check=True, capture_output=True)
    else:
        launcher, ranks = job.split()
        process = run(launcher, int(ranks), "-m", "hdnn_dist", "train", *arguments, timeout=600)
        assert process.returncode == 0, process.stderr
    return json.loads((folder / "summary.json").read_text())


def check_same_everywhere(folder: Path, settings: list[str], jobs: Collection[str]) -> None:
    summaries = {job: train(job, folder / job.replace(" ", ""), settings) for job in jobs}
    expected = summaries["local"]
    for job, summary in summaries.items():
        assert summary["ranks"] == JOBS[job]
        assert summary["links"] == PAIRS[JOBS[job]]
        assert len(summary["parameters_per_rank"]) == JOBS[job]
        assert all(0 <= waited < summary["seconds"] for waited in summary["seconds_waited_per_rank"])
        assert all(summary["seconds_waited_per_rank"]) == (JOBS[job] > 1)
        assert sum(summary["parameters_per_rank"]) == sum(expected["parameters_per_rank"])
        for key in ("loss", "test_loss"):
            assert summary[key] == pytest.approx(expected[key], rel=1e-9), job
        for key in ("test_accuracy", "train_accuracy", "messages_per_step", "bytes_per_step", "bytes_per_edge"):
            assert summary[key] == expected[key], (job, key)
        assert summary["off_graph_messages"] == 0
        assert (summary["wire_messages_per_step"] > 0) == (JOBS[job] > 1)


TELLS_WHAT_IT_IMPORTED = """
import os, sys, hdnn_dist.cli
from pathlib import Path
sys.argv[1:] = ["train", "--set", "epochs=1", "--set", "network.layers=4", "--run-dir", sys.argv[1]]
try:
    hdnn_dist.cli.main()
except SystemExit:  # before the end of the process, which ranks do without
    found = [name for name in ("torch._dynamo", "matplotlib", "hdnn_dist.bench") if name in sys.modules]
    Path(sys.argv[-1] + os.environ["RANK"]).write_text(" ".join(found))
    raise
"""


def test_a_rank_imports_what_it_needs(tmp_path: Path) -> None:
    """torch's compiler takes longer to import than all the rest, and compiles nothing here; the root alone draws."""
    script = tmp_path / "tells.py"
    script.write_text(TELLS_WHAT_IT_IMPORTED)
    ended = run("torchrun", 2, str(script), str(tmp_path / "run"))
    assert ended.returncode == 0, ended.stderr
    assert [(tmp_path / f"run{rank}").read_text() for rank in range(2)] == ["matplotlib", ""]


def test_the_first_line_and_the_summary_say_what_carries_the_edges(tmp_path: Path) -> None:
    settings = ["--set", "links=network", "--set", "epochs=0", "--set", "network.layers=1"]
    process = run("torchrun", 2, "-m", "hdnn_dist", "train", *settings, "--run-dir", str(tmp_path))
    assert process.returncode == 0, process.stderr
    first = process.stdout.splitlines()[0]
    assert first == "ring:8 on 2 ranks, c10d (gloo); edges between ranks: 1 through gloo"
    assert json.loads((tmp_path / "summary.json").read_text())["links"] == {"gloo": "0-1"}


def test_one_config_gives_the_same_result_everywhere(tmp_path: Path) -> None:
    """Contract 3 and 4, end to end."""
    mpiexec()
    check_same_everywhere(tmp_path, SMALL, FEW)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_default_config_gives_the_same_result_everywhere(tmp_path: Path) -> None:
    mpiexec()
    check_same_everywhere(tmp_path, FULL, JOBS)


@pytest.mark.parametrize("script", ["torchrun.sh", pytest.param("mpirun.sh", marks=pytest.mark.slow)])
def test_launch_scripts(script: str, tmp_path: Path) -> None:
    """The scripts of launch/ start the config files beside them, and pass overrides on."""
    mpiexec()
    settings = [word for key in [*SMALL, "epochs=1"] for word in ("--set", key)]
    config = LAUNCH / "configs" / "double_circles_ring8.toml"
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "VIRTUAL_ENV": str(BIN.parent)}
    command = [str(LAUNCH / script), "2", str(config), *settings, "--run-dir", str(tmp_path)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["ranks"] == 2
    assert subprocess.run(command[:1], capture_output=True).returncode == 2


def test_the_script_for_slurm_starts_ranks_of_mpi(tmp_path: Path) -> None:
    """Something in the place of srun: it leaves out srun's options, and starts two ranks."""
    (tmp_path / "srun").write_text(f"""#!/bin/sh
while [ "${{1#--}}" != "$1" ]; do shift; done
exec {mpiexec()} -n 2 "$@"
""")
    (tmp_path / "srun").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{BIN}:{os.environ['PATH']}", "VIRTUAL_ENV": str(BIN.parent)}
    environment["SLURM_JOB_ID"] = "1"
    settings = [word for key in [*SMALL, "epochs=1"] for word in ("--set", key)]
    command = [str(LAUNCH / "slurm_mpi.sh"), *settings, "--run-dir", str(tmp_path / "run")]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["ranks"] == 2
    assert subprocess.run(command[:1], capture_output=True).returncode == 2


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_sound(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(script)], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_examples_at_the_head_of_a_script_are_right(script: Path) -> None:
    examples = re.findall(r"^#   .*?(launch/configs/.*)$", script.read_text(), flags=re.MULTILINE)
    assert examples
    for example in examples:
        check_arguments(shlex.split(example))


def check_arguments(arguments: list[str]) -> None:
    """``hdnn-dist train`` takes them, and finds a config that is right."""
    train = typer.main.get_command(app).get_command(None, "train")
    given = train.make_context("train", arguments).params
    load_config(ROOT / given["config"], given["overrides"])


def manifest(name: str) -> dict:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install pyyaml")
    return yaml.safe_load((LAUNCH / name).read_text())


def containers(job: dict) -> Iterator[dict]:
    """Of all replicas of a job of Kubeflow."""
    for replicas in job["spec"][REPLICAS[job["kind"]]].values():
        assert replicas["replicas"] >= 1
        assert replicas["restartPolicy"] in ("Never", "OnFailure")  # what goes on is the run, from its checkpoint
        yield from replicas["template"]["spec"]["containers"]


REPLICAS = {"PyTorchJob": "pytorchReplicaSpecs", "MPIJob": "mpiReplicaSpecs"}
TRAIN = ["-m", "hdnn_dist", "train"]


def check_mounts(pods: dict) -> None:
    """Ranks write where --run-dir is, and all of them to the same volume."""
    (container,) = pods["spec"]["containers"]
    (mount,), (volume,) = container["volumeMounts"], pods["spec"]["volumes"]
    assert mount["name"] == volume["name"]
    assert mount["mountPath"] == "/runs"
    assert volume["persistentVolumeClaim"]["claimName"]


def test_the_manifest_of_torchrun() -> None:
    job = manifest("kubernetes_torchrun.yaml")
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    (container,), policy = containers(job), job["spec"]["elasticPolicy"]
    workers = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert policy["minReplicas"] == policy["maxReplicas"] == workers["replicas"]
    assert (policy["rdzvBackend"], policy["maxRestarts"]) == ("c10d", 10)
    assert job["spec"]["nprocPerNode"] == container["resources"]["limits"]["cpu"]  # text both
    assert (container["name"], container["command"], container["args"][:3]) == ("pytorch", ["torchrun"], TRAIN)
    check_arguments(container["args"][3:])
    check_mounts(workers["template"])


def test_the_manifest_of_mpi() -> None:
    job = manifest("kubernetes_mpi.yaml")
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    spec, (launcher, worker) = job["spec"], containers(job)
    workers = spec["mpiReplicaSpecs"]["Worker"]
    assert spec["mpiImplementation"] == "MPICH"
    assert launcher["command"] == ["mpiexec", "-n", str(workers["replicas"] * spec["slotsPerWorker"])]
    assert str(spec["slotsPerWorker"]) == worker["resources"]["limits"]["cpu"]
    assert launcher["image"] == worker["image"]
    assert launcher["args"][:6] == ["python", "-m", "mpi4py", *TRAIN]
    check_arguments(launcher["args"][6:])
    check_mounts(workers["template"])


@pytest.mark.parametrize("launcher", ["torchrun", "mpiexec"])
def test_wrong_input_ends_on_every_rank_in_one_line(launcher: str, tmp_path: Path) -> None:
    process = run(
        launcher, 3, "-m", "hdnn_dist", "train", "--set", "network.layer=3", "--run-dir", str(tmp_path / "run")
    )
    assert process.returncode != 0
    lines = [line for line in process.stderr.splitlines() if line.startswith("hdnn-dist: error: ")]
    assert lines
    assert all("unknown key 'network.layer': did you mean 'network.layers'?" in line for line in lines)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_example_of_the_readme_runs(ranks: int, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    script = tmp_path / "s.py"
    script.write_text(example)
    if ranks == 1:
        subprocess.run([sys.executable, str(script)], check=True)
    else:
        process = run("torchrun", ranks, str(script))
        assert process.returncode == 0, process.stderr
