"""Sparse autoencoders: trained on what a layer puts out, so that their latents are units like any others."""
