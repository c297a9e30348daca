"""Everything that is wrong with a user's model, told at once; and of one that is sound, what was found."""
