"""RunConfig in, a trained, measured and exported model out."""
