"""ASGI building blocks: endpoints, routing, responses, content negotiation and the lifespan protocol."""
