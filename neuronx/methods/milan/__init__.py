"""MILAN: describes a unit in a sentence (Hernandez et al., ICLR 2022)."""
