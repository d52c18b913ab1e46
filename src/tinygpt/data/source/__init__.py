"""What a run reads, as batches by number."""
