"""Models as other tools hold them, and other tools' rewrites as passes."""
