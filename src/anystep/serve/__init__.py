"""How does a client that knows only OpenAI's shapes get a better answer for its budget? A server of them."""

from anystep.serve.app import make
from anystep.serve.listen import running, serve

__all__ = ["make", "running", "serve"]
