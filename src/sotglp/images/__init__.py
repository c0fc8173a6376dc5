"""Image decoding, image sets from folders and manifests, few-shot draws and augmented views."""
