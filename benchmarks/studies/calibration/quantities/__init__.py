"""Everything that is printed with an interval: where its truth is known, and what is made of draws."""
