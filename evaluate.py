"""Explains networks and scores the explanations: `python evaluate.py sim=correlation`. See also `--help`."""

from neuronx.command.cli import evaluate_main

if __name__ == "__main__":
    evaluate_main()
