"""Who may talk to whom: communication graphs and the block patterns inside them."""
