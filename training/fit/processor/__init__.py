"""What the processor does best: precision, threads and devices, faster gradients, and how long it will take."""
