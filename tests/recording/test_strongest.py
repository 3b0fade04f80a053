import torch

from neuronx.methods.clip_dissect.similarity import top_rows
from neuronx.recording.strongest import strongest


def test_the_strongest_pictures_are_found_as_clip_dissect_finds_them():
    torch.manual_seed(0)
    values = torch.cat([torch.randn(300, 150), torch.rand(300, 5).sub(0.95).relu()], 1)  # ties by lot
    assert torch.equal(strongest(values, 20), top_rows(values, 20))
