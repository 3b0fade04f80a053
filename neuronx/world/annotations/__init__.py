"""Units of the world's networks described by rules, in the layout of MILANNOTATIONS."""
