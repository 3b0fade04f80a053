"""The two commands: what users type becomes a run. The only room that knows Hydra."""
