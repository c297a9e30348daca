"""Reading rows: their schema, and the shapes that tables, figures and pages need."""
