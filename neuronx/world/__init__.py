"""The embedded world: generated pictures and what is trained on them. Configs name it; the library never imports it."""
