"""Exact passes that move scale and shift between a tensor's producer and its consumers."""
