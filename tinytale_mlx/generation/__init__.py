"""From a model to text: how to choose the next token, and the loop that does it."""
