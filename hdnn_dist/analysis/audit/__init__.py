"""What the ledger of a job says, beside what the operating system shows of its ranks."""
