"""From song files to token batches: checks, frames, prepared datasets, vocabulary, training stream."""
