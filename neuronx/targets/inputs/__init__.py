"""What goes into a network: pictures, transformed, or a generator's latents."""
