"""Models on the Hugging Face Hub: model cards, uploads and downloads."""
