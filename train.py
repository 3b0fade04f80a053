"""Trains a part of neuronx: `python train.py le=label`. See `python train.py --help`."""

from neuronx.command.cli import train_main

if __name__ == "__main__":
    train_main()
