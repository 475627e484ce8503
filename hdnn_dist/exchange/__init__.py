"""Messages between neighbours: the world of ranks, who owns which agent, and the exchanges along the edges."""
