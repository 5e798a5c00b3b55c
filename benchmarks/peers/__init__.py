"""The programs that tinytale is compared with, each written plainly."""
