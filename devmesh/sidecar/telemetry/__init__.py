"""What happened: metrics, spans, access log; tuples on the hot path, encoded in batches."""
