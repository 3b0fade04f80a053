"""What was computed once is kept: blocks keyed by content, checked when read, resumable, shared by processes."""
