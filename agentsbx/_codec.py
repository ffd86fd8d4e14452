"""What a job sends back, as a closed set of types: the host never unpickles it.

The job calls `encode` or `encode_exception`, the host `decode` or `decode_exception`. What the
bytes can make is fixed here and in the `ClassTable` of the call: containers and scalars, types of
the standard library, arrays, and instances of classes that the return annotation or the arguments
name, filled field by field without running any method of theirs.
"""

from __future__ import annotations

from agentsbx._codec_decode import decode
from agentsbx._codec_encode import encode
from agentsbx._codec_errors import RemoteTraceback, decode_exception, encode_exception
from agentsbx._codec_table import ClassTable
from agentsbx._codec_wire import DEFAULT, CodecLimits

__all__ = [
    "DEFAULT",
    "ClassTable",
    "CodecLimits",
    "RemoteTraceback",
    "decode",
    "decode_exception",
    "encode",
    "encode_exception",
]
