"""Explains networks and scores the explanations: `python evaluate.py sim=correlation`. See also `--help`."""

from neuronx.command.start import evaluate

if __name__ == "__main__":
    evaluate()
