"""Trains a part of neuronx: `python train.py le=label`. See `python train.py --help`."""

from neuronx.command.start import train

if __name__ == "__main__":
    train()
