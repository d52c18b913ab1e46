"""What a language model is: config, slots, the decoder, its checkpoint."""
