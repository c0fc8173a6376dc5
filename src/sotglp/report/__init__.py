"""The report of one model: what is measured of it, and a page that shows it."""
