"""How η-space reaches φ-space: Jacobians of the encoder, and products with them."""
