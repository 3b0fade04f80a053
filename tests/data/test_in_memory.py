"""Whatever Python code may call pictures."""

import numpy as np
import pytest
import torch
from pictures import class_folders, picture
from torch.utils.data import TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from neuronx.data.folder import FolderProbe
from neuronx.data.in_memory import InMemoryProbe, probe_of
from neuronx.errors import UserError
from neuronx.targets.preprocess import Preprocess
from neuronx.world.pictures.probe import ShapesProbe


def first_batch(probe, transform):
    return next(iter(probe.loader(transform, batch_size=4)))[0]


def test_uint8_tensors_go_through_the_transform():
    pixels = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    probe = probe_of(pixels)
    assert isinstance(probe.load([0, 5]), torch.Tensor) and probe.domain == "natural" and probe.labels is None
    assert torch.allclose(first_batch(probe, Preprocess()), pixels[:4] / 255)
    pictures = InMemoryProbe(pixels, as_pictures=True)
    assert torch.allclose(first_batch(pictures, Preprocess()), pixels[:4] / 255)
    assert pictures.fingerprint == probe.fingerprint != probe_of(pixels.flip(0)).fingerprint


def test_float_tensors_are_fed_as_they_are():
    values = torch.randn(20, 3, 8, 8)
    probe = probe_of(values)
    assert torch.equal(first_batch(probe, Preprocess(resize=4, mean=(1, 1, 1), std=(2, 2, 2))), values[:4])
    assert probe.domain == "tensors"


def test_lists_and_datasets_of_pictures(tmp_path):
    pictures = [picture(i) for i in range(12)]
    probe = probe_of(pictures)
    assert probe.labels is None and np.array_equal(np.asarray(probe.load([3])[0]), np.asarray(pictures[3]))
    root = class_folders(tmp_path, {"a": 6, "b": 6})
    folder = probe_of(ImageFolder(root))
    assert folder.labels.tolist() == [0] * 6 + [1] * 6 and folder.class_names == ("a", "b")
    assert folder.fingerprint == probe.fingerprint
    ready = probe_of(ImageFolder(root, transform=ToTensor()))
    assert first_batch(ready, Preprocess(crop=2)).shape == (4, 3, 12, 12)


def test_tensor_datasets_with_labels():
    probe = probe_of(TensorDataset(torch.rand(10, 3, 4, 4), torch.arange(10) % 3))
    assert probe.labels.tolist() == [0, 1, 2] * 3 + [0] and probe.class_names == ("class 0", "class 1", "class 2")


def test_folders_and_probes(tmp_path):
    root = class_folders(tmp_path, {"a": 3})
    probe = probe_of(str(root))
    assert isinstance(probe, FolderProbe) and probe_of(probe) is probe


def test_what_is_wrong_is_said():
    with pytest.raises(UserError, match=r"\(N, 3, H, W\), not \(4, 8, 8, 3\)"):
        probe_of(torch.zeros(4, 8, 8, 3))
    with pytest.raises(UserError, match="holds no pictures"):
        probe_of([])
    with pytest.raises(UserError, match="4 pictures but labels of shape"):
        InMemoryProbe(torch.zeros(4, 3, 8, 8), labels=[0, 1])
    with pytest.raises(UserError, match="labels 0 to 5, but 2 class names"):
        InMemoryProbe(torch.zeros(4, 3, 8, 8), labels=[0, 1, 5, 0], class_names=("a", "b"))


def test_what_pixels_show_may_come_along():
    shapes = ShapesProbe(12)
    probe = InMemoryProbe(shapes.load(range(12)), segmentation=shapes.segmentation)
    names, present = probe.truth
    assert names == shapes.segmentation.names and torch.equal(present, shapes.truth[1])
    assert InMemoryProbe(shapes.load(range(12))).truth is None
