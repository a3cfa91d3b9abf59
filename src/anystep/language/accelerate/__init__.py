"""How does a model say the same with fewer or cheaper passes? One method a file."""
