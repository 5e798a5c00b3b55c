"""Alignment: from what people prefer to a model that does it; the mathematics as pure functions of arrays."""
