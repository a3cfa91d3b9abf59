"""How does a model behind an OpenAI-compatible server become a process? Requests that are paid for, cut and counted."""

from anystep.language.endpoint.capabilities import Capabilities
from anystep.language.endpoint.process import EndpointProcess
from anystep.language.endpoint.server import Endpoint
from anystep.language.endpoint.states import Transcript, Transcripts
from anystep.language.endpoint.thinking import Thinking
from anystep.language.endpoint.usage import Prices

__all__ = ["Capabilities", "Endpoint", "EndpointProcess", "Prices", "Thinking", "Transcript", "Transcripts"]
