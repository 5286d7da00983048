"""Exact passes that take away what an exporter left behind and give compound operators their names back."""
