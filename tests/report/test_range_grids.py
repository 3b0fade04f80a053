"""Rows of images beyond the top."""

import numpy as np
import torch
from PIL import Image

from neuronx.recording.pictures import Gallery
from neuronx.recording.ranges import activation_ranges
from neuronx.report import range_grids
from neuronx.report.range_grids import SIDE, draw_ranges
from neuronx.report.tiles import GAP, Strip


def test_each_range_is_a_row_of_its_images(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(range_grids, "Strip", lambda *row: said.append(row[:2]) or Strip(*row))
    values = torch.arange(20.0, 0.0, -1)[:, None].expand(-1, 2)
    ranges = activation_ranges(values, ranks=((0, 2), (2, 20)), n=4)
    images = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, SIDE, SIDE), np.uint8)
    paths = draw_ranges(ranges, 20, [3, 7], Gallery(torch.arange(20), images), tmp_path)
    assert [path.name for path in paths] == ["unit_3_ranges.png", "unit_7_ranges.png"]
    assert said[:2] == [("Top 0%-10%", "activations 19 to 20"), ("Top 10%-100%", "activations 1 to 18")]
    drawn = np.asarray(Image.open(paths[1]))
    assert drawn.shape[1] == GAP + 4 * (SIDE + GAP)
    line = drawn.shape[0] // 2 - SIDE // 2  # through the first row
    first = [int(drawn[line, GAP + column * (SIDE + GAP) + 5, 0]) for column in range(4)]
    assert first == [0, 1, 255, 255], "the first range has two images only"
