"""How the world's networks and CLIPs are trained."""
