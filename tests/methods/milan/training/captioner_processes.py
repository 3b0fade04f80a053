"""Run by test_captioner_processes: fits a small captioner: captioner_processes.py OUT DEVICES EPOCHS [CKPT]."""

import json
import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[3]))
from captioning import fit
from lightning import Callback

from neuronx.recording.trainer import make
from neuronx.store.processes import is_first


class Curve(Callback):
    """The losses of every epoch."""

    def __init__(self):
        self.losses = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.losses.append({name: float(value) for name, value in trainer.callback_metrics.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    out, devices, epochs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    curve = Curve()
    strategy = "ddp" if devices > 1 else "auto"
    options = {"devices": devices, "strategy": strategy, "enable_progress_bar": False, "callbacks": [curve]}
    trainer = partial(make, accelerator="cpu", **options)
    # Processes draw their own dropout, so that losses can only be compared without.
    dropout = 0.5 if devices == 1 and "same" not in sys.argv else 0.0
    ckpt = sys.argv[4] if len(sys.argv) > 4 and sys.argv[4] != "same" else None
    captioner, facts = fit(out, trainer, epochs=epochs, dropout=dropout, patience=100, ckpt_path=ckpt)
    if is_first():
        torch.save(captioner.state_dict(), out / "weights.pt")
        (out / "curve.json").write_text(json.dumps(curve.losses))
