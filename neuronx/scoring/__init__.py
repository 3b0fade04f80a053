"""How far explanations can be trusted: they are simulated on images that no method saw, by an independent judge."""
