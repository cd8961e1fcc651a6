"""The offline commands, one module each; `runner` is what they share."""
