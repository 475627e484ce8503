"""How the blocks of K lie in memory, how they start, and how they multiply; knows no architecture."""
