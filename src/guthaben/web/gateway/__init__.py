"""The OpenAI-compatible gateway: `/openai/v1/...`, reserve, forward, stream, settle."""
