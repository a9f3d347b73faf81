"""Native formats of this field to song records. Each module reads one format and yields `score.Score`s."""
