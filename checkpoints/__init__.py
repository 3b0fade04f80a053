"""Trained weights of the embedded world, each with a card; `neuronx.store.checkpoints` reads and writes them."""

from neuronx.store.checkpoints import FOLDER, SUFFIXES, find, load, read, read_card, rounded, ship, write

__all__ = ["FOLDER", "SUFFIXES", "find", "load", "read", "read_card", "rounded", "ship", "write"]
