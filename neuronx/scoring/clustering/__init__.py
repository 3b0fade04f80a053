"""`sim=purity`: distances in and between clusters of a unit's references."""
