from functools import partial

from captioning import fit, lesson, world
from lightning.pytorch.loggers import CSVLogger
from model_folders import make_model

from neuronx import milannotations
from neuronx.callbacks.caption_samples import COLUMNS, CaptionSamples
from neuronx.tables.csv import read_csv


class Board(CSVLogger):
    """A logger that knows tables and images, as that of W&B."""

    def __init__(self, folder):
        super().__init__(folder)
        self.tables, self.images = [], []

    def log_table(self, key, columns, data):
        self.tables.append((key, columns, data))

    def log_image(self, key, images):
        self.images.append((key, images))


def test_captions_of_every_epoch_are_logged(tmp_path, trainer):
    board, files = Board(tmp_path / "board"), CSVLogger(tmp_path, name="training", version="")
    callbacks = [CaptionSamples(images=True, units=3)]
    fit(tmp_path, partial(trainer, callbacks=callbacks, logger=[board, files]), epochs=2, language_model=False)
    assert [(key, columns, len(data)) for key, columns, data in board.tables] == [("captions", list(COLUMNS), 3)] * 2
    assert not board.images  # nobody knows the pictures
    _, rows = read_csv(tmp_path / "training/captions.csv")
    assert [row.cells["epoch"] for row in rows] == ["0"] * 3 + ["1"] * 3
    said = world(96)[1]
    assert rows[0].cells["described as"] == " | ".join(said[int(rows[0].cells["unit"])])


def test_exemplars_are_shown_where_asked_for(tmp_path, trainer):
    make_model(tmp_path / "net/data", {"a": 20}, side=16)
    units = milannotations.load("net/data", tmp_path)
    features, _ = world(20)
    for images in (False, True):
        board = Board(tmp_path / "board")
        made = partial(trainer, callbacks=[CaptionSamples(images, units=2)], logger=[board])
        lesson(epochs=1, language_model=False).fit(features, units.annotations, made, tmp_path, shown=units)
        assert [key for key, _ in board.images] == ["captioned exemplars"] * images
        assert all(row[1].startswith("net/data a:") for row in board.tables[0][2])
    picture = board.images[0][1][0]
    assert picture.width > 3 * 100 and picture.height > 2 * 100
