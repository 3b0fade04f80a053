"""Experiments with captions of units, as in MILAN (Hernandez et al., 2022): each gives data and a table of them."""
