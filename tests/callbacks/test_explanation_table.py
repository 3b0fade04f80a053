import pytest
import torch
from lightning import LightningModule
from torch.utils.data import DataLoader

from neuronx.callbacks.explanation_table import ExplanationTable
from neuronx.report.loggers import CsvLog
from neuronx.tables.explanations import read_explanations
from neuronx.types import Explanation, Unit

EXPLANATIONS = [
    Explanation(Unit("fc", 0), (("dog", 2.0), ("cat", 1.0)), 0.5, notes=(("val correlation", 0.25),)),
    Explanation(Unit("fc", 1, 0), ()),
]


class Module(LightningModule):
    def __init__(self, explanations):
        super().__init__()
        self.found = explanations
        self.layer = torch.nn.Linear(2, 1)

    def explanations(self):
        return self.found

    def training_step(self, batch):
        return self.layer(batch).sum()

    def test_step(self, batch):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Tables(CsvLog().lightning(".").__class__):
    """A logger that knows tables, as that of W&B."""

    def __init__(self, folder):
        super().__init__(folder)
        self.tables = []

    def log_table(self, key, columns, data):
        self.tables.append((key, columns, data))


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_explanations_reach_every_logger(tmp_path, trainer, verb):
    tables, files = Tables(tmp_path / "tables"), CsvLog().lightning(tmp_path)
    made = trainer(logger=[tables, files], callbacks=[ExplanationTable()], max_epochs=1)
    getattr(made, verb)(Module(EXPLANATIONS), DataLoader(torch.ones(2, 2)))
    assert [key for key, _, _ in tables.tables] == ["explanations"]
    assert read_explanations(tmp_path / "training" / "explanations.csv") == EXPLANATIONS


def test_a_module_without_explanations_logs_nothing(tmp_path, trainer):
    tables = Tables(tmp_path)
    trainer(logger=tables, callbacks=[ExplanationTable()]).test(Module([]), DataLoader(torch.ones(2, 2)), verbose=False)
    assert tables.tables == []
