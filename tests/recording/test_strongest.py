import pytest
import torch

from neuronx.recording.strongest import strongest
from neuronx.recording.tally import lots


@pytest.mark.parametrize("memory_mb", [1, 512])
def test_the_strongest_pictures_come_first_and_of_equal_ones_those_drawn_first(memory_mb):
    torch.manual_seed(0)
    values = torch.cat([torch.randn(300, 150), torch.rand(300, 5).sub(0.95).relu()], 1)  # ties by lot
    drawn = lots(torch.arange(300), torch.tensor(0)).tolist()
    expected = [sorted(range(300), key=lambda row, of=of: (-of[row], drawn[row]))[:20] for of in values.T.tolist()]
    assert strongest(values, 20, memory_mb).T.tolist() == expected


def test_ties_are_broken_by_lot():
    T = torch.tensor([[0.0], [2.0], [0.0], [-0.0], [2.0], [-1.0]])
    first, second, *others = strongest(T, 5)[:, 0].tolist()
    assert {first, second} == {1, 4} and set(others) == {0, 2, 3}
    rare = torch.zeros(1000, 1)
    rare[[3, 700]] = torch.tensor([[1.0], [2.0]])
    rows = strongest(rare, 102)[:, 0]
    assert rows[:2].tolist() == [700, 3] and len(rows.unique()) == 102
    assert 350 < rows[2:].float().mean() < 650, "from all over the data, which may be sorted by class"
