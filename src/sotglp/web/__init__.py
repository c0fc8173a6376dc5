"""A trained model over HTTP: a JSON API, and a page in the browser that uses it."""
