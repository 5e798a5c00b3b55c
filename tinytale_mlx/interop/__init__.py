"""Other programs' formats: the model directories of mlx-lm and transformers, written and read."""
