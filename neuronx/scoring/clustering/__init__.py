"""`sim=purity`: how far clusters of a unit's references lie apart."""
