"""How good a model is, in figures that can be compared."""
