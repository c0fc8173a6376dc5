"""Images: decoding, image sets from folders and tables, the few-shot draw, augmented views."""
