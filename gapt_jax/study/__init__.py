"""User studies: from a table of participants' ratings to tables and a figure."""

NEEDED = ("participant", "system", "question", "score")  # columns of the table
OPTIONAL = ("order", "repeat")
