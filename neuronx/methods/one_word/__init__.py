"""Namers that give each unit one word of a list: csp, semantic_lens and best_auprc."""
