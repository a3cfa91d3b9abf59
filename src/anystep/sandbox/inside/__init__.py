"""What runs on the far side of the boundary: standard library only, and never the package's own __init__."""
