"""The built-in recipes: one YAML file each, read by `tinytale_mlx.recipe_files`."""
