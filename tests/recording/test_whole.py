import torch

from neuronx.recording.exemplars import whole_images
from neuronx.recording.record import record
from neuronx.world import networks as shapes
from neuronx.world.pictures.probe import ShapesProbe


def test_the_strongest_images_of_a_class_token(trainer):
    target, probe = shapes.load("shapes_vit", layers={"blocks.3": "first"}), ShapesProbe(40, seed=3)
    found = whole_images(target, probe, trainer, target.layers, k=5, quantile=0.9)["blocks.3"]
    values = record(target, probe, trainer)["blocks.3"].values
    seen = probe.split("train", "val")
    assert found.grid is None and found.images == len(seen) and found.rows.shape == (96, 5)
    for unit in (0, 17, 95):
        assert found.rows[unit].tolist() == sorted(seen.tolist(), key=lambda row: (-values[row, unit], row))[:5]
        assert torch.equal(found.peaks[unit], values[found.rows[unit], unit])
    torch.testing.assert_close(found.thresholds, values[seen].quantile(0.9, 0))


def test_fewer_images_than_asked_for(trainer):
    target, probe = shapes.load("shapes_vit", layers={"blocks.3": "first"}), ShapesProbe(10, seed=3)
    assert whole_images(target, probe, trainer, target.layers, k=50)["blocks.3"].rows.shape == (96, 8)
