"""The prompted network, its text encoder, and models on disk."""
