import torch
from lightning import LightningModule
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch.utils.data import DataLoader

from neuronx.callbacks.exemplar_grid import ExemplarGrid


class Module(LightningModule):
    def test_step(self, batch):
        pass

    def predict_step(self, batch):
        pass


class Album(CSVLogger):
    """A logger that knows images, as that of W&B."""

    def __init__(self, folder):
        super().__init__(folder)
        self.images = {}

    def log_image(self, key, images):
        self.images[key] = images


def logged(folder, trainer, images, verb="test"):
    album = Album(folder / "log")
    made = trainer(logger=[album, CSVLogger(folder / "log")], callbacks=[ExemplarGrid(folder, images)])
    getattr(made, verb)(Module(), DataLoader(torch.ones(1)))
    return album.images


def test_sheets_of_layers_come_before_single_units(tmp_path, trainer):
    for name in ("pictures/net/fc/unit_0.png", "pictures/net_fc.png", "wandb/other.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path)
    for verb in ("test", "predict"):
        found = logged(tmp_path, trainer, True, verb)
        assert list(found) == ["pictures/net_fc.png", "pictures/net/fc/unit_0.png"]
        assert found["pictures/net_fc.png"] == [str(tmp_path / "pictures/net_fc.png")]


def test_pictures_are_sent_only_when_asked_for(tmp_path, trainer):
    Image.new("RGB", (2, 2)).save(tmp_path / "sheet.png")
    assert logged(tmp_path, trainer, False) == {}
