"""How MILAN's captioner is trained."""
