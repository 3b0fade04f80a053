"""One pass over images: batches in order, whole outputs, inputs of several parts, errors that name the layer."""

import pytest
import torch
from torch import nn

from neuronx.errors import UserError
from neuronx.recording.exemplars import find_exemplars
from neuronx.recording.maps import on_grid
from neuronx.recording.walk import naming, walk
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target


def test_every_batch_is_visited_once_in_order(job, trainer):
    target, probe = job.small_target(), job.Noise(50)
    visited, first = [], {}

    def visit(rows, found):
        visited.append(rows.tolist())
        first.setdefault("outputs", dict(found))

    walk(target, probe, trainer, ["0", "4"], visit, torch.arange(3, 30), batch_size=10, skip=frozenset({1}))
    assert visited == [list(range(3, 13)), list(range(23, 30))]
    x = target.transform(probe.load(range(3, 13)))
    with torch.no_grad():
        # The ReLU after layer 0 works in place: what is shown is what the layer put out.
        torch.testing.assert_close(first["outputs"]["0"], target.module[0](x), atol=1e-5, rtol=1e-4)


def test_precision_does_not_spoil_the_network(job, trainer):
    target = job.small_target()
    kinds = set()

    def visit(_, found):
        kinds.add(found["0"].dtype)

    walk(target, job.Noise(20), lambda: trainer(precision="bf16-true"), ["0"], visit)
    assert kinds == {torch.bfloat16} and target.module[0].weight.dtype == torch.float32


class Generator(nn.Module):
    """From a latent and a class to maps of four cells."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Identity()

    def forward(self, z, y):
        return self.maps((z + y[:, None]).view(-1, 2, 2, 2))


def test_a_generator_takes_what_its_loader_gives(job, trainer):
    class Latents(job.Noise):
        def loader(self, transform, rows=None, **options):
            for images, numbers in super().loader(transform, rows, **options):
                del images
                yield (numbers.float()[:, None].expand(-1, 8), 100.0 * (numbers == 7)), numbers

    target = Target("generator", Generator(), Preprocess(), {"maps": "avg"})
    found = find_exemplars(target, Latents(20), trainer, k=2, rows=torch.arange(20))["maps"]
    assert found.rows.tolist() == [[7, 19]] * 2 and found.peaks[0].tolist() == [107, 19]


@pytest.mark.parametrize("layer", ["4", "mlp[1]"])
def test_mistakes_name_layer_and_network(job, layer):
    with pytest.raises(UserError) as error, naming(job.small_target(), layer):
        on_grid(torch.zeros(2, 3))
    assert str(error.value) == (
        f"Layer `{layer}` of small: it has no positions, one number for each unit only, so there are no masks."
    )
