"""What a case of the convergence benchmark does. Imports torch, which its options do not."""
