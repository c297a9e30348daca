"""Parts of the convergence benchmark that are no kind of their own."""
