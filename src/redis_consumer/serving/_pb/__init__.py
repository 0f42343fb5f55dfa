"""Generated message classes; `tools/generate_protos.py` makes them from the .proto files beside them."""
