"""The report of one model: its evaluation, and the HTML page that shows it."""
