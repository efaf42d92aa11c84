"""Speed on a processor: precision, threads and devices, faster gradients, and how long a training will take."""
