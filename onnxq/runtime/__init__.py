"""ONNX Runtime: sessions, isolated workers, what became of a graph, timing, and the machine underneath."""

from onnxq.runtime.session import PROVIDERS, Feeds, Level, Port, Session, SessionSettings, open_session

__all__ = ["PROVIDERS", "Feeds", "Level", "Port", "Session", "SessionSettings", "open_session"]
