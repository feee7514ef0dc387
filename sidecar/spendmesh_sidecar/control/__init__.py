"""The way to the control server: policy down; rights, use and what is seen up."""
