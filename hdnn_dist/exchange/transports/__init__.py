"""What carries rows between ranks: one file for each transport."""
