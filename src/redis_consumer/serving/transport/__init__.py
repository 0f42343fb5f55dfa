"""Carries calls to model servers over gRPC."""
