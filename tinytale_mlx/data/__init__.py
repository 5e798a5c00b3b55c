"""Text to batches: sources give documents, shards hold their tokens, batches are windows of them."""
