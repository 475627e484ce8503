"""The worked examples, with their figures beside a centralised baseline."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'hdnn-dist[tables]'")
pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'hdnn-dist[data]'")
EXAMPLES = Path(__file__).parents[1] / "launch" / "examples"


@pytest.mark.slow
def test_ten_agents_know_breast_cancer_as_well_as_one(tmp_path: Path) -> None:
    line = [sys.executable, str(EXAMPLES / "breast_cancer.py"), str(tmp_path)]
    told = subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    network, baseline = map(float, re.findall(r"0\.\d{4}|1\.0000", told))
    assert network >= 0.965
    assert network >= baseline - 0.01
