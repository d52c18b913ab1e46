"""How a conversation is written as text, and which of it is learned."""
