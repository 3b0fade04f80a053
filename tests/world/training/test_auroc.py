import torch
from sklearn.metrics import roc_auc_score

from neuronx.world.training.contrastive import auroc


def test_equals_scikit_learns_with_and_without_ties():
    torch.manual_seed(0)
    scores = torch.randn(200, 6)
    scores[:, 3:] = scores[:, 3:].round()
    truth = torch.rand(200, 6) < torch.sigmoid(scores)
    expected = [roc_auc_score(truth[:, c], scores[:, c]) for c in range(6)]
    torch.testing.assert_close(auroc(scores, truth), torch.tensor(expected, dtype=torch.float64))


def test_is_unknown_where_all_or_none_are_true():
    values = auroc(torch.rand(5, 2), torch.tensor([[True, False]] * 5))
    assert values.isnan().all()
