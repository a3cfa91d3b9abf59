"""How does a client that knows only OpenAI's shapes get a better answer for its budget? A server of them."""
