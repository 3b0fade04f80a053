"""Low-level visual concepts: named features that are computed from pixels."""
