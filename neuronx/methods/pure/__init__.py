"""PURE: splits units that mean several things by the circuits that drive them (Dreyer et al., CVPR-W 2024)."""
