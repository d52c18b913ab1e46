"""The server: what OpenAI's, Ollama's and Anthropic's clients send, as requests to engines."""
