"""PURE: units that mean several things, told apart by the circuits that drive them (Dreyer et al., CVPR-W 2024)."""
