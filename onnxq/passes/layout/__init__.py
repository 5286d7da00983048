"""Exact passes that choose the spelling which the target's runtime executes fastest."""
