"""A Hugging Face hub on loopback."""
