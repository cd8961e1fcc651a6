"""What a world model can do: closed loop, probes, reports."""
