"""What a sample can hold: its kinds, and the prior shares that answers take into account."""
