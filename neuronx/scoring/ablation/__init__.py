"""`sim=ablation`: what replacing a unit by its simulation does to the network's loss."""
