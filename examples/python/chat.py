#!/usr/bin/env python3
"""A client in Python: asks one question and prints the answer as it comes.

    pip install grpcio grpcio-tools            # or Debian's python3-grpcio and protobuf-compiler-grpc
    python3 -m grpc_tools.protoc -I. --python_out=stubs --grpc_python_out=stubs proto/bellwether/v1/inference.proto
    PYTHONPATH=stubs python3 examples/python/chat.py HOST:PORT "What is a bellwether?"

(`make build` leaves the same stubs in build/release/generated/python.)
"""

import sys

import grpc

from proto.bellwether.v1 import inference_pb2 as pb
from proto.bellwether.v1 import inference_pb2_grpc


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: chat.py HOST:PORT QUESTION")
    with grpc.insecure_channel(sys.argv[1]) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        request = pb.ChatRequest(
            messages=[pb.ChatMessage(role="user", content=sys.argv[2])],
            options=pb.GenerationOptions(max_tokens=256, sampling=pb.Sampling(temperature=0.7)))
        # The deadline reaches the server: it stops computing when nobody waits any more. So does stream.cancel().
        stream = stub.Chat(request, timeout=120)
        try:
            for response in stream:
                print(response.text, end="", flush=True)
                if response.interruption:  # a worker was lost; the answer goes on when others serve in its place
                    print(f"\n[{response.interruption}]", file=sys.stderr)
                if response.HasField("usage"):
                    print(f"\n[{response.usage.generated_tokens} tokens]")
        except grpc.RpcError as error:
            sys.exit(f"chat.py: {error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()
