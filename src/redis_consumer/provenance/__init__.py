"""Records how a result was made: software, settings, models, inputs and outputs."""
