"""PyTorch modules to zipit's graphs and back: the work behind `zipit_torch.py`."""
