"""Large K and d: extra memory stays within bounds. Each case in a process of its own, for its own peak."""

import subprocess
import sys

import pytest

MEASURE = """
import sys, torch
from pathlib import Path
from eqcollapse.collapse import Moments, collapse_metrics

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024

K, d, N = map(int, sys.argv[1:])
torch.set_num_threads(1)
labels = torch.arange(N) % K
weight = torch.randn(K, d)
features = weight[labels] + 0.1 * torch.randn(N, d)
collapse_metrics(Moments.of(features[:100, :8], labels[:100] % 4, 4))  # libraries loaded
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
found = collapse_metrics(Moments.of(features, labels, K, weight), weight, majority=range(K // 2))
assert found["nc1_rank"] == K - 1
print(resident("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(("K", "d", "N", "limit"), [(100, 2048, 5000, 100), (1000, 2048, 5000, 1024)])
def test_extra_memory(K, d, N, limit):
    command = [sys.executable, "-c", MEASURE, str(K), str(d), str(N)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < limit
