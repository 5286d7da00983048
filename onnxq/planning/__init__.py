"""Decisions taken from measured effect: which form each layer gets, where to clip, what to migrate."""
