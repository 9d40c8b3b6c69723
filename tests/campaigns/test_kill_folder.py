"""`make test-kill`: runs over a folder that are killed at 62 moments go on, and leave the folder that nobody killed.

Before every fsync and rename of 12 results, and before and in the middle of every line of the journal.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.folders import predict_files
from fastseg.predict import Predictor
from killed_runs import KINDS, killed_run, results
from toys import COLORS, NearestColor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.kill,
    pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL"),
]
IMAGES = 6
RESULTS = IMAGES * len(KINDS)
LINES = 1 + 2 * IMAGES  # of the journal: settings, and each image begun and finished
MOMENTS = (
    [("fsync", call) for call in range(2 * RESULTS)]  # of a file, and of its folder
    + [("replace", call) for call in range(RESULTS)]
    + [(kind, call) for kind in ("line", "half a line") for call in range(1, LINES)]
    + [("line", 0), ("half a line", 0)]
)


def test_a_run_that_is_killed_anywhere_ends_equal(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for index in range(IMAGES):
        (photos / f"day {index % 2}").mkdir(parents=True, exist_ok=True)
        classes = np.random.default_rng(index).integers(0, 4, (8, 12), np.uint8)
        Image.fromarray(COLORS[classes]).save(photos / f"day {index % 2}" / f"{index}.png")
    exact = Predictor(NearestColor(), device="cpu")
    predict_files(exact, [photos], tmp_path / "whole", kinds=KINDS)
    whole = results(tmp_path / "whole")
    assert len(whole) == RESULTS
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_runs"])
    equal, torn = 0, 0
    for function, call in MOMENTS:
        out = tmp_path / f"{function} {call}"
        killed_run(photos, out, function, call, context=context)
        torn += any(name.endswith(".tmp") for name in results(out))
        summary = predict_files(exact, [photos], out, kinds=KINDS, resume=True)
        assert summary.failed == [], (function, call)
        equal += results(out) == whole
    print(f"\n{equal} of {len(MOMENTS)} folders equal; {torn} had half written files")
    assert len(MOMENTS) >= 50
    assert equal == len(MOMENTS)
    assert torn > RESULTS
