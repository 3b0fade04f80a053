"""MILANNOTATIONS: exemplars of units as images and masks on disk, in the layout of their authors."""
