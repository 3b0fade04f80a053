import pytest
import torch
from torch.nn.functional import normalize

from neuronx.errors import UserError
from neuronx.methods.one_word.directions import centred, contrasted, cosines
from neuronx.methods.one_word.method import BestAuprc, Csp, SemanticLens
from neuronx.metrics.auprc import average_precision
from neuronx.metrics.panel import panel


def test_csp_takes_away_what_a_cold_picture_shares():
    images = normalize(torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0.1, 1]]), dim=1)
    values = torch.tensor([[4.0], [0], [1], [1]])
    found = contrasted(images, values, torch.tensor([[0]]))
    assert torch.allclose(found, torch.tensor([[0.0, 4, 0]]), atol=1e-6)  # the unit likes y, not x
    assert torch.allclose(contrasted(images, values, torch.tensor([[0]]), gamma=0.0), 4 * images[:1])


def test_csp_by_a_loop():
    torch.manual_seed(0)
    images, values = normalize(torch.randn(50, 6), dim=1), torch.randn(50, 4).relu()
    values[:, 3] = values[:, 3] - 9  # always below 0: all weigh alike
    top = values.topk(5, 0).indices
    for k, vector in enumerate(contrasted(images, values, top)):
        level = values[:, k].median()
        cold = (values[:, k] < level) if (values[:, k] < level).any() else values[:, k] <= level
        wanted = torch.zeros(6)
        for row in top[:, k]:
            nearest = images[cold][(images[cold] @ images[row]).argmax()]
            own = images[row] - (images[row] @ nearest) * nearest
            wanted += own / own.norm() * (values[row, k] if k < 3 else 1)
        assert torch.allclose(vector, wanted, atol=1e-5)


def test_the_mean_of_the_top_pictures_less_that_of_all():
    images = torch.eye(4)
    found = centred(images, torch.tensor([[0], [1]]))
    assert torch.allclose(found, torch.tensor([[0.25, 0.25, -0.25, -0.25]]))
    assert torch.allclose(cosines(found, images), torch.tensor([[0.5, 0.5, -0.5, -0.5]]))


def test_average_precision_of_all_pairs_is_that_of_the_panel():
    torch.manual_seed(0)
    values, concepts = torch.rand(200, 3).sub(0.5).relu(), torch.rand(200, 4).mul(20).round() / 20  # with ties
    values = torch.cat([values, torch.ones(200, 1)], 1)
    found = average_precision(values, concepts, 0.05)
    for k in range(3):
        one = panel(values[:, [k] * 4], concepts, ["auprc"])["auprc"]
        assert torch.allclose(found[k], one, atol=1e-12)
    assert found[3].isnan().all()


@pytest.mark.parametrize("method", [Csp, SemanticLens, BestAuprc])
def test_units_get_the_colour_that_they_see(method, colours, trainer):
    found = method(colours.clip, colours.words, **({"k": 10} if method is not BestAuprc else {})).explain(
        colours.target, colours.probe, trainer
    )
    assert [str(one) for one in found] == ["red", "green", "blue", "inactive"]
    assert all(one.made_by == ("digest of eye",) and len(one.evidence) == 15 for one in found[:3])
    assert found[3].evidence == () and found[0].support
    some = method(colours.clip, colours.words, **({"k": 10} if method is not BestAuprc else {})).explain(
        colours.target.select(units=[1, 3]), colours.probe, trainer
    )
    assert some == [found[1], found[3]]


def test_a_template_is_subtracted(colours):
    class Texts:
        def embed_texts(self, texts):
            return torch.tensor([[float(len(text)), 1.0] for text in texts])

    assert SemanticLens(Texts(), None, template="a {}").texts(["b", "cc"]).tolist() == [[2.0, 0.0], [3.0, 0.0]]
    assert SemanticLens(Texts(), None).texts(["b", "cc"]).tolist() == [[-0.5, 0.0], [0.5, 0.0]]


def test_mistakes_of_namers(colours, trainer):
    with pytest.raises(UserError, match=r"csp looks at the top 500 images .* explain\.csp\.k=8"):
        Csp(colours.clip, colours.words, k=500).explain(colours.target, colours.probe, trainer)
    with pytest.raises(UserError, match=r"semantic_lens\.template=a needs \{\} where the word goes"):
        SemanticLens(colours.clip, colours.words, template="a")
