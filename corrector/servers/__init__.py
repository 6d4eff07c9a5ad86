"""OpenAI-compatible servers: posting with retries, and chats that are kept."""
