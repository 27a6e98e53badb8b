"""Any combinatorial solver as a PyTorch layer."""
