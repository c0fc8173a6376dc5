"""The model file: one safetensors file with what a model learned."""
